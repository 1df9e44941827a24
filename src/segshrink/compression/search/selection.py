"""Which candidates fit, which are worth a training, which is chosen, and what to say about the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segshrink.compression.budget import Breach, Budget, worst
from segshrink.compression.search.records import Entry, MeasuredFile, Reference
from segshrink.profiling.load import is_busy

_TOO = {
    "latency": "too slow",
    "size": "too large",
    "memory": "too hungry",
    "parameters": "too many parameters",
    "macs": "too many operations",
    "drop": "too inaccurate",
    "miou": "too inaccurate",
    "accuracy": "too inaccurate",
}
# Beyond a limit by so much of it, pruning may still bring a candidate within: where others fit, and where none does.
SLIGHTLY, FAR = 0.5, 3.0
# Pruned candidates aim below the limit, since latency falls more slowly than operations.
_MARGIN = 0.85
# Less of a network is not worth keeping.
_LEAST_SHARE = 0.2
_PRUNED_WHERE_OTHERS_FIT, _PRUNED_WHERE_NONE_FITS = 1, 3


@dataclass(frozen=True)
class Miss:
    """The file of a candidate that came nearest to a budget, and the limits it breaks."""

    entry: Entry
    file: MeasuredFile
    breaches: tuple[Breach, ...]

    @property
    def excess(self) -> float:
        """By how much it misses the limit it misses most; 0 when it keeps all."""
        return max((breach.excess for breach in self.breaches), default=0.0)

    @property
    def reason(self) -> str:
        """Such as "too slow: latency 31 ms > 20 ms (int8 on onnxruntime)"."""
        told = "; ".join(f"{_TOO[breach.limit.name]}: {breach}" for breach in self.breaches)
        return f"{told} ({self.file.label}{self.doubt})"

    @property
    def doubt(self) -> str:
        """What other programs took of the cores while its latency was measured, where that was much."""
        timed = any(breach.limit.name == "latency" for breach in self.breaches)
        busy = timed and is_busy(self.file.load)
        return f", measured while other programs took {self.file.load:.0%} of the cores" if busy else ""


@dataclass(frozen=True)
class Pruning:
    """A candidate that pruning may bring within a budget, and to how many multiply-accumulates."""

    entry: Entry
    macs: int
    share: float


def nearest_file(entry: Entry, files: Sequence[MeasuredFile], budget: Budget, teacher: Reference | None) -> Miss:
    """Return the file of a candidate that comes nearest to a budget; of those that keep it, the most accurate.

    Args:
        entry: The candidate.
        files: Its files, at least one.
        budget: The limits; those on accuracy are judged where a file was scored.
        teacher: What a drop is counted from.
    """
    teacher_iou = None if teacher is None else teacher.mean_iou
    misses = [Miss(entry, file, budget.breaches(entry.values(file, teacher_iou=teacher_iou))) for file in files]
    return min(misses, key=lambda miss: (miss.excess, -_accuracy(miss.file), miss.file.latency_ms))


def fits(entry: Entry, budget: Budget) -> bool:
    """Whether one of an untrained candidate's files keeps all limits."""
    return bool(entry.untrained) and not nearest_file(entry, entry.untrained, budget.untrained(), None).breaches


def shortlist(entries: Sequence[Entry], count: int) -> list[Entry]:
    """Choose which candidates to distil among those that fit.

    The recipe's own student first; then the strongest of each family in turn. Networks that start from trained weights
    count as stronger; otherwise the geometric mean of parameters and operations decides.

    Args:
        entries: Candidates that fit.
        count: How many, at least 1.
    """
    own = [entry for entry in entries if entry.candidate.own]
    families: dict[str, list[Entry]] = {}
    for entry in sorted((entry for entry in entries if not entry.candidate.own), key=_strength, reverse=True):
        families.setdefault(entry.candidate.family, []).append(entry)
    # The own student's family has had its turn.
    started = [entry.candidate.family for entry in own]
    order = sorted(families, key=lambda family: family in started)
    queue = list(own)
    while any(families.values()):
        queue.extend(families[family].pop(0) for family in order if families[family])
    return queue[:count]


def prunings(entries: Sequence[Entry], budget: Budget) -> list[Pruning]:
    """Propose what to prune: the best candidates that are slightly beyond a limit, or all near ones where none fits.

    What was pruned before and still is beyond it is to be pruned further, as long as its base isn't cut to pieces.
    """
    limits = budget.untrained()
    none_fits = not any(fits(entry, budget) for entry in entries if entry.candidate.pruned_from is None)
    far = FAR if none_fits else SLIGHTLY
    misses = [
        nearest_file(entry, entry.untrained, limits, None)
        for entry in entries
        if entry.untrained and entry.candidate.pruned_from is None and (none_fits or entry.candidate.keeps_weights)
    ]
    near = [miss for miss in misses if 0 < miss.excess <= far]
    near.sort(key=(lambda miss: miss.excess) if none_fits else (lambda miss: -_capacity(miss.entry)))
    found = []
    for miss in near[: _PRUNED_WHERE_NONE_FITS if none_fits else _PRUNED_WHERE_OTHERS_FIT]:
        last = min(
            (entry for entry in entries if entry.candidate.pruned_from == miss.entry.name and entry.untrained),
            key=lambda entry: entry.macs,
            default=miss.entry,
        )
        excess = nearest_file(last, last.untrained, limits, None).excess
        share = _MARGIN / (1 + excess) * last.macs / miss.entry.macs
        if excess > 0 and share >= _LEAST_SHARE:
            found.append(Pruning(miss.entry, math.floor(share * miss.entry.macs), share))
    return found


def unmet(misses: Sequence[Miss], budget: Budget, *, trained: bool) -> str:
    """Say in one sentence which limit binds and what came nearest.

    Args:
        misses: The nearest file of every candidate, at least one.
        budget: The budget.
        trained: Whether candidates were trained; else the budget is out of reach whatever is trained.
    """
    nearest = min(misses, key=lambda miss: miss.excess)
    binding = worst(nearest.breaches)
    limits = budget.untrained().limits
    reached = [
        f"{limit} is kept by {sum(limit.name not in {one.limit.name for one in miss.breaches} for miss in misses)} "
        f"of {len(misses)}"
        for limit in limits
    ]
    remedy = (
        "loosen it, distil more candidates (--candidates), or train longer"
        if trained
        else f"nothing was trained ({', '.join(reached)}); loosen it, or offer smaller networks (--families)"
    )
    return (
        f"no candidate meets the budget '{budget}': {binding.limit} binds; the nearest, {nearest.entry.name} "
        f"({nearest.file.label}{nearest.doubt}), reaches {binding}; {remedy}"
    )


def front(points: Sequence[tuple[Entry, MeasuredFile]]) -> list[tuple[Entry, MeasuredFile]]:
    """Return the files that no other beats: none is as accurate, as fast and as small, and better in one of these."""
    return [point for point in points if not any(_beats(other[1], point[1]) for other in points if other is not point)]


def _beats(one: MeasuredFile, other: MeasuredFile) -> bool:
    first = (-_accuracy(one), one.latency_ms, one.size_bytes)
    second = (-_accuracy(other), other.latency_ms, other.size_bytes)
    return first != second and all(mine <= its for mine, its in zip(first, second, strict=True))


def _accuracy(file: MeasuredFile) -> float:
    return -math.inf if file.mean_iou is None else file.mean_iou


def _strength(entry: Entry) -> tuple[bool, float]:
    return entry.candidate.keeps_weights or entry.candidate.pruned_from is not None, _capacity(entry)


def _capacity(entry: Entry) -> float:
    return math.sqrt(entry.parameters * entry.macs)
