"""From a folder that nobody has described to a data set description and a recipe."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

from segshrink.config import DatasetDescription, load_dataset
from segshrink.data.annotation_layout import LabeledLayout, find_labeled_layout
from segshrink.data.class_guess import Ask, GuessedClasses, guess_classes, guess_instances, guess_labels
from segshrink.data.class_names import category_names, find_class_names
from segshrink.data.content_layout import hold_few_values, layout_by_content
from segshrink.data.layout import Layout, augmented_folders, find_layout, layout_from_lists
from segshrink.data.mask_survey import MaskSurvey, survey_masks
from segshrink.data.pairing import find_pairs, refuse_unpaired
from segshrink.data.path_words import drawbacks
from segshrink.data.split_guess import GuessedSplit, guess_split
from segshrink.data.splits import divide, find_images
from segshrink.errors import ConfigError, DataError, FileError
from segshrink.files import scratch_folder, write_text, writing
from segshrink.formatting import listed, percent, printable
from segshrink.imagery import MaskOptions
from segshrink.imagery.mask_options import BACKGROUNDS
from segshrink.workflows.init_files import (
    DATA,
    EXCLUDED,
    IMAGES,
    PAIRS,
    RECIPE,
    UNLABELED,
    InitResult,
    broken_lines,
    is_image,
    list_text,
    name_of,
    relative,
    whats_there,
    yaml_value,
)
from segshrink.workflows.init_images import init_images
from segshrink.workflows.progress import Progress, silent
from segshrink.workflows.starting_recipe import recipe_text, starting_sizes
from segshrink.workflows.starting_teacher import tried_teacher


def take_first(question: str, answers: Sequence[str]) -> str:
    """Answer every question with what is likeliest."""
    return answers[0]


def init(
    folder: str | Path,
    *,
    teacher: str | Path | None = None,
    out: str | Path = ".",
    ask: Ask = take_first,
    progress: Progress = silent,
) -> InitResult:
    """Look at a folder of images and masks, and write a description and a recipe for it.

    Pairs, split and classes are found by names of files, lists beside them, and by what masks hold. Images without
    masks do where a teacher is there: its classes are theirs. Nothing is written inside the folder.

    Args:
        folder: Images and masks, in any of the layouts of public data sets.
        teacher: A teacher that is there already, for the recipe, as in ``distill``; None trains one.
        out: Where ``data.yaml`` and ``recipe.yaml`` go, outside of the folder.
        ask: Answers what isn't sure; by default the likeliest is taken.
        progress: Told how many masks were looked at.

    Raises:
        FileError: There is no such folder, or no such teacher; ``out`` lies in it or holds these files already.
        DataError: No image has a mask and no teacher names its classes, or masks hold no classes; says what is there
            and what helps.
    """
    folder, out = Path(folder).resolve(), Path(out)
    _check_places(folder, out)
    everything = _names(folder)
    copies = augmented_folders(everything)
    names = [name for name in everything if str(PurePosixPath(name).parent) not in copies]
    if copies and find_layout(names) is None:  # the masks lie there
        names, copies = everything, set()
    layout = find_layout(names) or layout_from_lists(folder, names)
    labeled = find_labeled_layout(folder, names, layout, ask)
    layout = labeled.layout if labeled else layout or layout_by_content(folder, names)
    if layout is None or not layout.pairs:
        if teacher is not None and (images := [name for name in names if is_image(name)]):
            return init_images(folder, out, images, str(teacher))
        raise DataError(f"no image with its mask was found in {folder}: {whats_there(names)}")
    if layout.others and not labeled:
        layout = _chosen_masks(folder, names, layout, ask)
    survey, options, classes, source = _look(folder, names, layout, labeled, ask, progress)
    good = [pair for pair in layout.pairs if pair[0] not in survey.broken]
    held = {image: set(values) for image, values in survey.by_image.items()}
    split = guess_split(folder, names, [image for image, _ in good], layout.unpaired, held)
    draft = _Draft(folder, out, layout, survey, classes, split, source, options, sorted(copies))
    by_wildcards = draft.layout.images is not None and _means_the_pairs(draft)
    if teacher is None:
        return _written(draft, by_wildcards=by_wildcards)
    with scratch_folder() as scratch:
        described = _describe(draft, scratch, by_wildcards=by_wildcards)
        teachers, doubt = tried_teacher(str(teacher), described, progress)
    return _written(draft, by_wildcards=by_wildcards, teachers=teachers, doubt=doubt)


def _chosen_masks(folder: Path, names: Sequence[str], layout: Layout, ask: Ask) -> Layout:
    """Return the layout with the wanted one of several masks; the likeliest are the first that hold few values."""
    every = chain([layout], (find_layout(names, masks=other) for other in layout.others))
    likeliest = next((each for each in every if each and hold_few_values(folder, each.pairs[:2])), layout)
    answers = dict.fromkeys(masks for masks in (likeliest.masks, layout.masks, *layout.others) if masks)
    answer = ask("several masks belong to each image; which?", list(answers))
    known = next((each for each in (likeliest, layout) if each.masks == answer), None)
    return known or find_layout(names, masks=answer) or layout


def _look(
    folder: Path,
    names: Sequence[str],
    layout: Layout,
    labeled: LabeledLayout | None,
    ask: Ask,
    progress: Progress,
) -> tuple[MaskSurvey, MaskOptions, GuessedClasses, str | None]:
    """Look at masks; return what was seen, how they are read, their classes, and what names these."""
    options = labeled.options if labeled else MaskOptions()
    labels = labeled.labels if labeled else {}
    if labeled:
        background = next((label for label in labels if label.casefold() in BACKGROUNDS), BACKGROUNDS[0])
        options, labels = replace(options, background=background), {background: background, **labels}
    look = partial(survey_masks, folder, layout.pairs, labels=list(labels), progress=partial(progress, "look at masks"))
    survey = look(options=options)
    named, names_file = find_class_names(folder, names)
    if not labeled and (instances := guess_instances(survey, named=bool(named))):
        options = replace(options, instances=instances)
        survey = look(options=options)
    if not survey.looked:
        image, reason = next(iter(survey.broken.items()))
        raise DataError(f"none of the {len(layout.pairs)} pairs in {folder} can be used; {image}: {reason}")
    if labeled:
        return survey, options, guess_labels(survey, labels, labeled.colors), labeled.source
    if not named:
        named, names_file = category_names(folder / layout.pairs[0][1]), f"{layout.pairs[0][1]}.aux.xml"
    if re.search(r"(?i)train_?ids?(?![a-z])", layout.pairs[0][1]) and any(entry.value is not None for entry in named):
        named = ()  # they are of the ids before these were numbered anew for training
    source = names_file if named else None
    return survey, options, guess_classes(survey, named, source=source, ask=ask), source


@dataclass(frozen=True)
class _Draft:
    """All that was found out."""

    folder: Path
    out: Path
    layout: Layout
    survey: MaskSurvey
    classes: GuessedClasses
    split: GuessedSplit
    source: str | None
    options: MaskOptions
    copies: list[str]

    @property
    def name(self) -> str:
        return name_of(self.folder)

    @property
    def left_out(self) -> str:
        """Say which folders are left out; empty for none."""
        said = f"left out, as altered copies of other images, which training makes by itself: {listed(self.copies)}"
        return said if self.copies else ""

    @property
    def unsure(self) -> tuple[str, ...]:
        also = [
            f"{what} are {pattern}; there are also {listed(list(others))}"
            for what, pattern, others in (
                ("masks", self.layout.masks, self.layout.others),
                ("images", self.layout.images or PAIRS, self.layout.other_images),
            )
            if others
        ]
        if drawbacks(*self.layout.pairs[0])[0]:
            also.append(
                f"images are {self.layout.images or PAIRS}, by name one band of several, heights or drawings; where "
                "bands have files of their own, join them first (gdalbuildvrt -separate)"
            )
        if self.layout.by_content:
            also.append(f"no name tells which files are masks; {self.layout.masks} are taken, as they hold few values")
        if self.layout.apart:
            also.append(
                f"pairs that are laid out in another way are not taken: images {listed(list(self.layout.apart))}"
            )
        doubts: dict[str, list[str]] = defaultdict(list)
        for entry in (*self.classes.classes, *self.classes.ignored):
            doubts[entry.unsure].append(str(entry.mask))
        entries = [f"{listed(masks)}: {doubt}" for doubt, masks in doubts.items() if doubt]
        return tuple(
            text
            for text in (*also, self.left_out, f"split: {self.split.unsure}", *entries)
            if text and text != "split: "
        )


def _written(draft: _Draft, *, by_wildcards: bool, teachers: str | None = None, doubt: str = "") -> InitResult:
    """Write the files."""
    out = draft.out
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        description = _describe(draft, out, by_wildcards=by_wildcards)
        images = [pair.relative for pair in find_pairs(description).pairs]
        division = divide(description.split, images, root=description.root)
        pixels = sum(height * width for height, width in draft.survey.sizes) / draft.survey.looked
        sizes = starting_sizes(
            train_pixels=pixels * len(division.train),
            val_pixels=pixels * len(division.val),
            sides=[min(size) for size in draft.survey.sizes],
            classes=len(draft.classes.classes),
            bands=draft.survey.bands,
            own_teacher=teachers is None,
            students=2,
        )
        plain = draft.survey.bands == 3 and draft.survey.dtype == "uint8"
        text = recipe_text(draft.name, sizes, teachers=teachers, doubt=doubt, plain_bytes=plain)
        write_text(out / RECIPE, text)
    shares = {entry.name: entry.share for entry in draft.classes.classes}
    unsure = (*draft.unsure, *filter(None, [doubt]))
    return InitResult(out / DATA, out / RECIPE, len(images), shares, unsure, sizes.hours, sizes.compress_hours)


def _describe(draft: _Draft, out: Path, *, by_wildcards: bool) -> DatasetDescription:
    """Write the description and its lists into a folder, and read it."""
    for name, text in _data_files(replace(draft, out=out), by_wildcards=by_wildcards).items():
        write_text(out / name, text)
    return load_dataset(out / DATA)


def _means_the_pairs(draft: _Draft) -> bool:
    """Try whether the wildcards, read as any description is, lead to a split without a fault."""
    with scratch_folder() as scratch:
        description = _describe(draft, scratch, by_wildcards=True)
        try:
            found = find_pairs(description)
            division = divide(description.split, [pair.relative for pair in found.pairs], root=description.root)
            refuse_unpaired(description, found, division)
        except (ConfigError, DataError):
            return False
    return not division.problems


def _data_files(draft: _Draft, *, by_wildcards: bool) -> dict[str, str]:
    """Return the description and the lists that it names."""
    layout, survey = draft.layout, draft.survey
    good = [pair for pair in layout.pairs if pair[0] not in survey.broken]
    outside = relative(draft.out.resolve(), draft.folder)
    files: dict[str, str] = {}
    looked = f"{survey.looked} of {len(layout.pairs)} pairs were looked at" if survey.looked < len(good) else ""
    lines = [
        "# Written by segshrink init from what lies in the folder; what it wasn't sure of is marked with (?).",
        *([f"# {looked}: more may be wrong, and segshrink inspect looks at all."] if looked else []),
        f"name: {yaml_value(draft.name)}",
        f"root: {yaml_value(relative(draft.folder, draft.out.resolve()))}",
    ]
    masks, images = (listed(list(others)) for others in (layout.others, layout.other_images))
    doubt = f"; (?) there are also images {printable(images)}" if layout.other_images else ""
    if by_wildcards:
        lines += [f"images: {yaml_value(layout.images)}  # {len(layout.pairs)} pairs{doubt}"]
        lines += [
            f"masks: {yaml_value(layout.masks)}"
            + (f"  # (?) there are also {printable(masks)}" if layout.others else "")
        ]
    else:
        files[PAIRS] = list_text(f"{image}\t{mask}" for image, mask in good)
        lines.append(
            f"images: {yaml_value(f'{outside}/{PAIRS}')}  # {len(good)} pairs, by a list: no wildcard means just these"
            f"{doubt}"
        )
        lines += (
            [f"# (?) masks are {printable(str(layout.masks))}; there are also {printable(masks)}"]
            if layout.others
            else []
        )
    if draft.left_out:
        lines.append(f"# (?) {printable(draft.left_out)}")
    if survey.broken:
        lines += broken_lines(survey.broken, f"{outside}/{EXCLUDED}", files, excluded=by_wildcards)
    if survey.resized:
        lines.append(f"mask_resize: nearest  # {survey.resized} masks have another size than their image")
    lines += _class_lines(draft)
    lines += _split_lines(draft.split)
    if layout.unpaired and not by_wildcards:
        files[UNLABELED] = list_text(layout.unpaired)
        listed_in = yaml_value(f"{outside}/{UNLABELED}")
        lines.append(f"unlabeled: {listed_in}  # {len(layout.unpaired)} images without a mask")
    elif layout.unpaired:
        lines.append(f"unlabeled: {yaml_value(layout.images)}  # {len(layout.unpaired)} images without a mask")
    return {DATA: "\n".join(lines) + "\n", **files}


def _class_lines(draft: _Draft) -> list[str]:
    guessed, survey = draft.classes, draft.survey
    key = "color" if survey.in_color else "value"
    lines = [f"classes:  # names by {draft.source}" if draft.source else "classes:"]
    for entry in guessed.classes:
        parts = [f"name: {yaml_value(entry.name)}"]
        if not survey.by_label:
            parts.append(f"{key}: {yaml_value(entry.mask)}")
        elif entry.mask != entry.name:
            parts.append(f"labels: [{yaml_value(entry.mask)}]")
        if entry.color and not survey.in_color:
            parts.append(f"color: {yaml_value(entry.color)}")
        doubt = f" (?) {entry.unsure}" if entry.unsure else ""
        lines.append(f"  - {{{', '.join(parts)}}}  # {percent(entry.share)}{doubt}")
    if guessed.absent:
        lines.append(f"# listed, but in no mask that was looked at: {printable(listed(list(guessed.absent), 30))}")
    if guessed.ignored:
        values = ", ".join(yaml_value(entry.mask) for entry in guessed.ignored)
        doubts = [f"{entry.mask} {percent(entry.share)}: {entry.unsure or entry.name}" for entry in guessed.ignored]
        mark = "(?) " if any(entry.unsure for entry in guessed.ignored) else ""
        key = "ignore_labels" if survey.by_label else "ignore"
        lines.append(f"{key}: [{values}]  # {mark}{printable('; '.join(doubts))}")
    options = draft.options
    if survey.by_label and options.background in {entry.name for entry in guessed.classes}:
        lines.append(f"mask_background: {yaml_value(options.background)}  # what nobody drew")
    if options.field is not None:
        lines.append(f"mask_field: {yaml_value(options.field)}")
    if options.instances is not None:
        lines.append(f"mask_instances: {options.instances}  # values of masks are ids of objects")
    if not survey.in_color and not survey.by_label:
        lines.append("mask_kind: index")
    if absent := _absent_from_training(draft):
        lines.append(f"allow_absent: [{', '.join(map(yaml_value, absent))}]  # in no training mask that was looked at")
    return lines


def _absent_from_training(draft: _Draft) -> list[str]:
    """Return the classes that only judged images hold."""
    fields = draft.split.fields
    if "train" not in fields:
        return []
    images = list(draft.survey.by_image)
    train, _ = find_images(fields["train"], images, root=draft.folder, field="train")
    held = set().union(*(draft.survey.by_image[images[place]] for place in train))
    return [entry.name for entry in draft.classes.classes if entry.mask not in held]


def _split_lines(split: GuessedSplit) -> list[str]:
    doubt = f"; (?) {split.unsure}" if split.unsure else ""
    lines = [f"split:  # {split.reason}{doubt}"]
    for part, entries in split.fields.items():
        given = f"[{', '.join(map(yaml_value, entries))}]" if isinstance(entries, list) else yaml_value(entries)
        lines.append(f"  {part}: {given}")
    return lines


def _check_places(folder: Path, out: Path) -> None:
    if not folder.is_dir():
        raise FileError(f"there is no folder {folder}; give the folder that holds images and masks")
    if out.resolve().is_relative_to(folder):
        raise FileError(f"{out.resolve()} lies in {folder}, where nothing is written; choose another place with --out")
    for name in (DATA, RECIPE, PAIRS, UNLABELED, EXCLUDED, IMAGES):
        if (out / name).exists():
            raise FileError(f"{out / name} is there already; move it away, or choose another place with --out")


def _names(folder: Path) -> list[str]:
    """Return all files in a folder, relative to it, but hidden ones, sorted; links are followed, each folder once."""
    names, visited = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        prefix = Path(place).relative_to(folder).as_posix()
        names += [name if prefix == "." else f"{prefix}/{name}" for name in files if not name.startswith(".")]
    return sorted(names)
