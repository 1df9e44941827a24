"""Finding masks by what files hold, where no name tells which files they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from segshrink.data.layout import MASK_SUFFIXES, Layout, explained
from segshrink.data.mask_survey import MOST_KINDS, survey_masks
from segshrink.data.path_words import match_all_kinds
from segshrink.data.wildcards import common_wildcard

_LOOKED_AT = 2


def layout_by_content(root: Path, names: Sequence[str]) -> Layout | None:
    """Pair files whose paths agree, of which one kind holds few values and the other many.

    Args:
        root: The folder.
        names: All files in it, relative to it.

    Returns:
        The most such pairs; None where there are none.
    """
    files = [name for name in names if PurePosixPath(name).suffix.lower() in MASK_SUFFIXES]
    found = []
    for kind, pairs in match_all_kinds(files):
        few = list(pairs.items())[:_LOOKED_AT]
        if hold_few_values(root, few) and not hold_few_values(root, [(mask, image) for image, mask in few]):
            found.append((kind, pairs))
    if not found:
        return None
    kind, pairs = found[0]
    files_of, all_pairs = list(kind.files), dict(pairs)
    suffixes = _suffixes(pairs)
    for other, more in found[1:]:
        if (
            _suffixes(more) == suffixes
            and set(more).isdisjoint(files_of)
            and set(more.values()).isdisjoint(all_pairs.values())
        ):
            files_of, all_pairs = [*files_of, *other.files], all_pairs | more
    images, masks = common_wildcard(sorted(all_pairs)), common_wildcard(sorted(all_pairs.values()))
    rest = [more for _, more in found if not more.items() <= all_pairs.items()]
    unpaired = tuple(sorted(set(files_of) - set(all_pairs)))
    layout = Layout(
        images,
        masks,
        tuple(sorted(all_pairs.items())),
        unpaired,
        tuple(common_wildcard(sorted(more.values())) for more in rest if not set(more).isdisjoint(all_pairs)),
        tuple(
            common_wildcard(sorted(more))
            for more in rest
            if set(more.values()) & set(all_pairs.values()) and set(more).isdisjoint(all_pairs)
        ),
        by_content=True,
    )
    return explained(layout, names)


def _suffixes(pairs: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(PurePosixPath(path).suffix.lower() for path in next(iter(pairs.items())))


def hold_few_values(root: Path, pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether the masks of a few (image, mask) can be read and hold no more values than classes may be."""
    survey = survey_masks(root, pairs)
    return not survey.broken and all(len(held) <= MOST_KINDS for held in survey.by_image.values())
