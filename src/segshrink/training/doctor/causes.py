"""The search for what explains a teacher's bad score: treatments are tried on few crops, the best on all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from segshrink.errors import SegshrinkError
from segshrink.teachers import Teacher
from segshrink.training.doctor.measuring import (
    POOR_LEVEL,
    Matrices,
    best_order,
    gain,
    level,
    majority_iou,
    mean_iou,
    reordered,
)
from segshrink.training.doctor.sample import Sample
from segshrink.training.doctor.scaling import Scaling
from segshrink.training.doctor.trials import FAMILIES, Progress, Trial, combinations, measure, single_trials

# A treatment is a cause when it brings at least this much mIoU, and surely some of it (95 % interval over crops).
LEAST_GAIN, LEAST_SURE_GAIN = 0.05, 0.02
# A second treatment must bring this much more than the first alone.
_LEAST_SECOND_GAIN = 0.1
# Treatments within this much mIoU of the best explain as much; the more usual cause is named.
_TIE = 0.02
# ... and of one kind within this much.
_CLOSE_TIE = 0.005
# What is worth measuring on all crops, by the gain on the few.
_PROMISING = 0.03
_FEWEST = 4
_CONFIRMED = 3


@dataclass(frozen=True)
class Cause:
    """What explains a teacher's score.

    Attributes:
        families: The kinds of treatment, in the order of ``trials.FAMILIES``; two where only both together explain it.
        trial: The treatment.
        order: For each class of the student, the teacher's channel (in the student's order) that stands for it; None
            where the order is right.
        before: mIoU without it.
        after: mIoU with it.
        sure_gain: Lower end of the gain's 95 % interval.
        alone: mIoU of the best single treatment of each kind, for comparison.
    """

    families: tuple[str, ...]
    trial: Trial
    order: tuple[int, ...] | None
    before: float
    after: float
    sure_gain: float
    alone: dict[str, float] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """MIoU that the treatment brings."""
        return self.after - self.before


@dataclass(frozen=True)
class _Measured:
    """A treatment on all crops, with the classes as they are or in their best order."""

    trial: Trial
    ordered: bool
    families: tuple[str, ...]
    matrices: Matrices

    @property
    def score(self) -> float:
        return mean_iou(self.matrices)


class Search:
    """Finds the cause.

    Args:
        teacher: Whose answers are judged.
        sample: The crops.
        base: How the teacher is used now.
        matrices: Its confusion matrices (n, C, C) then.
        inner: What it is known to do to pixels; None: unknown.
        progress: Called after every treatment with (treatments done, treatments in all, what is being done).

    Attributes:
        alone: After ``run``: mIoU of the best single treatment of each kind that looked promising.
    """

    def __init__(
        self,
        teacher: Teacher,
        sample: Sample,
        *,
        base: Trial,
        matrices: Matrices,
        inner: Scaling | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._teacher, self._sample, self._base, self._matrices = teacher, sample, base, matrices
        self._inner = inner
        self._progress = progress
        self._few = range(min(len(sample), max(_FEWEST, len(sample) // 5)))
        self.alone: dict[str, float] = {}
        self._few_scores: dict[Trial, float] = {}
        self._all: dict[Trial, Matrices] = {base: matrices}

    def run(self, *, bad: bool) -> Cause | None:
        """Return what explains the score, or None.

        Args:
            bad: Whether the teacher does so badly that two causes at once are looked for as well.
        """
        singles = single_trials(self._teacher, self._sample, base=self._base, inner=self._inner)
        promising = self._promising(singles)
        measured = self._measured([self._base, *promising])
        self.alone = _best_of_each(measured)
        single = self._chosen([one for one in measured if len(one.families) == 1])
        room = 1.0 if single is None else 1 - single.score
        if (bad or single is not None) and room >= _LEAST_SECOND_GAIN:
            single = self._second(measured, singles, single)
        if single is None:
            return None
        _, sure = gain(self._matrices, single.matrices)
        return Cause(
            families=single.families,
            trial=single.trial,
            order=best_order(self._all[single.trial]) if single.ordered else None,
            before=mean_iou(self._matrices),
            after=single.score,
            sure_gain=sure,
            alone=self.alone,
        )

    def _second(self, measured: list[_Measured], singles: list[Trial], single: _Measured | None) -> _Measured | None:
        """Return a pair of treatments if it explains clearly more than ``single``, else ``single``.

        Tried are the best two with all others, and all scalings with the other band order: where both are wrong,
        neither alone need help.
        """
        first = self._best_on_few(singles)[:2]
        first += [trial for trial in singles if trial.families(self._base) == ("order",)]
        pairs = [pair for one in first for two in singles for pair in combinations(one, two, base=self._base)]
        different = list(dict.fromkeys(pairs))
        together = [*measured, *self._measured(self._promising(different))]
        reference = self._matrices if single is None else single.matrices
        pairs_of = [one for one in together if len(one.families) == 2]
        found = [one for one in pairs_of if self._explains(reference, one, _LEAST_SECOND_GAIN)]
        return self._preferred(found) or single

    def _chosen(self, measured: Iterable[_Measured]) -> _Measured | None:
        return self._preferred([one for one in measured if self._explains(self._matrices, one, LEAST_GAIN)])

    def _preferred(self, measured: Sequence[_Measured]) -> _Measured | None:
        """Return the best; among those that are as good the more usual kind of cause, and the more usual of a kind."""
        if not measured:
            return None
        as_good = _within(measured, _TIE)
        families = min((one.families for one in as_good), key=lambda kinds: [FAMILIES.index(kind) for kind in kinds])
        usual = list(self._few_scores)  # in the order in which they were tried
        same = _within([one for one in as_good if one.families == families], _CLOSE_TIE)
        return min(same, key=lambda one: usual.index(one.trial))

    def _explains(self, before: Matrices, one: _Measured, least: float) -> bool:
        """Tell whether a treatment brings enough, surely, and makes a teacher that isn't poor any more."""
        gained, sure = gain(before, one.matrices)
        reached = level(one.score, majority_iou(self._matrices))
        return gained >= least and sure >= LEAST_SURE_GAIN and reached >= POOR_LEVEL

    def _measured(self, trials: Iterable[Trial]) -> list[_Measured]:
        """Measure treatments on all crops, each with the classes as they are and in their best order."""
        found = []
        for trial in trials:
            if trial not in self._all:
                self._all[trial] = measure(self._teacher, self._sample, trial, range(len(self._sample)))
            families = trial.families(self._base)
            matrices = self._all[trial]
            if families:
                found.append(_Measured(trial, False, families, matrices))
            found.append(_Measured(trial, True, (*families, "classes"), reordered(matrices)))
        return found

    def _promising(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the few treatments that bring most on the few crops, in any class order, if they bring enough."""
        now = self._on_few(self._base)
        for number, trial in enumerate(trials):
            self._on_few(trial)
            if self._progress is not None:
                self._progress(number + 1, len(trials), "trying the usual causes")
        best = [trial for trial in self._best_on_few(trials) if self._few_scores[trial] >= now + _PROMISING]
        return best[:_CONFIRMED]

    def _best_on_few(self, trials: Sequence[Trial]) -> list[Trial]:
        return sorted((trial for trial in trials if trial in self._few_scores), key=lambda one: -self._few_scores[one])

    def _on_few(self, trial: Trial) -> float:
        """Return a treatment's score on the few crops, in the best class order; 0 where the teacher can't take it."""
        if trial not in self._few_scores:
            try:
                matrices = measure(self._teacher, self._sample, trial, self._few)
            except (RuntimeError, ValueError, SegshrinkError):
                self._few_scores[trial] = 0.0  # a network of fixed size, say
            else:
                ordered = matrices[:, :, list(best_order(matrices))]
                self._few_scores[trial] = max(mean_iou(matrices), mean_iou(ordered))
        return self._few_scores[trial]


def _sorted(measured: Iterable[_Measured]) -> list[_Measured]:
    return sorted(measured, key=lambda one: -one.score)


def _within(measured: Sequence[_Measured], margin: float) -> list[_Measured]:
    """Return those whose score is at most ``margin`` below the best."""
    best = max(one.score for one in measured)
    return [one for one in measured if one.score >= best - margin]


def _best_of_each(measured: Iterable[_Measured]) -> dict[str, float]:
    singles = [one for one in measured if len(one.families) == 1]
    return {one.families[0]: one.score for one in reversed(_sorted(singles))}
