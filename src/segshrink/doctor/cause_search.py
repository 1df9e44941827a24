"""The search for what explains a teacher's bad score: treatments are tried on few crops, the best on all.

A scaling that nobody has a name for is fitted. Batch statistics undo any scaling of pixels, so where they help most the
scaling is suspected: it is to blame if those of the first layer alone help as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from segshrink.doctor.measuring import (
    POOR_LEVEL,
    Matrices,
    best_order,
    gain,
    level,
    majority_iou,
    mean_iou,
    reordered,
)
from segshrink.doctor.sample import Sample
from segshrink.doctor.scaling import FIT_FACTORS, Scaling, fit_grids, fit_steps
from segshrink.doctor.input_variants import FAMILIES, Progress, Trial, combinations, measure, single_trials
from segshrink.errors import SegshrinkError
from segshrink.teachers import Teacher

# A treatment is a cause when it brings at least this much mIoU, and surely some of it (95 % interval over crops).
LEAST_GAIN, LEAST_SURE_GAIN = 0.05, 0.02
# A second treatment must bring this much more than the first alone.
_LEAST_SECOND_GAIN = 0.1
# Exchanged bands are a single treatment, not the best of many, and a sound teacher loses by it; one trained on varied
# colours gains little: this much is enough, as the first or the second, if it surely (95 %) gains at all.
_LEAST_ORDER_GAIN = 0.03
# Treatments within this much mIoU of the best explain as much; the more usual cause is named.
_TIE = 0.02
# ... and of one kind within this much.
_CLOSE_TIE = 0.005
# A fitted scaling must bring this much more than those with a name, of which one is likely to be the right one.
_LEAST_FIT_GAIN = 0.08
# A treatment that leaves the teacher poor is its likely cause when it brings this much of the way to perfect.
_LEAST_LIKELY_STEP = 0.1
# Share of what batch statistics bring that those of the first layer alone bring where the scaling is to blame.
_FIRST_LAYER_SHARE = 0.7
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
    batch: float | None = None

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
        self._named: list[Trial] = []  # scalings that aren't fitted
        self._few_scores: dict[Trial, float] = {}
        self._all: dict[Trial, Matrices] = {base: matrices}

    def run(self, *, bad: bool, steady: bool = True) -> Cause | None:
        """Return what explains the score, or None.

        Args:
            bad: Whether the teacher does so badly that two causes at once are looked for as well, and treatments that
                leave it poor are named.
            steady: Whether it answers alike each time.
        """
        base = self._base
        singles = single_trials(self._teacher, self._sample, base=base, inner=self._inner, steady=steady)
        promising = self._promising(singles)
        self._named = [trial for trial in singles if trial.families(base) == ("scaling",)]
        if bad or any({"scaling", "statistics"} & {*trial.families(base)} for trial in promising):
            singles += self._fitted(base, singles)
            promising = self._promising(singles)
        other = replace(base, reverse=not base.reverse)
        exchanged = [other] if other in singles else []  # on few crops it can hide
        measured = self._measured(dict.fromkeys([base, *promising, *exchanged]))
        chosen = self._chosen([one for one in measured if len(one.families) == 1])
        room = 1.0 if chosen is None else 1 - chosen.score
        if (bad or chosen is not None) and room >= _LEAST_SECOND_GAIN:
            pairs = self._pairs(singles, every_scaling=chosen is None)
            if chosen is None and exchanged:
                self._promising(pairs)
                pairs += self._fitted(other, pairs)
            if chosen is not None:
                exchanged = [pair for one in exchanged for pair in combinations(chosen.trial, one, base=base)]
            measured += self._measured(dict.fromkeys([*self._promising(pairs), *exchanged]))
            chosen = self._second([one for one in measured if len(one.families) == 2], chosen) or chosen
        self.alone = _best_of_each(measured)
        if chosen is None and bad:
            chosen = self._preferred(
                [one for one in measured if self._explains(self._matrices, one, LEAST_GAIN, likely=True)]
            )
        return None if chosen is None else self._cause(chosen)

    def _cause(self, chosen: _Measured) -> Cause:
        chosen, batch = self._rescaled(chosen)
        return Cause(
            families=chosen.families,
            trial=chosen.trial,
            order=best_order(self._all[chosen.trial]) if chosen.ordered else None,
            before=mean_iou(self._matrices),
            after=chosen.score,
            sure_gain=gain(self._matrices, chosen.matrices)[1],
            alone=self.alone,
            batch=batch,
        )

    def _rescaled(self, chosen: _Measured) -> tuple[_Measured, float | None]:
        """Return the scaling that batch statistics undo, if that is all they do, and the score with the statistics."""
        if chosen.trial.statistics != "batch" or chosen.trial.scaling != self._base.scaling:
            return chosen, None
        plain = replace(chosen.trial, statistics=self._base.statistics)
        first = self._one(replace(plain, statistics="first"), chosen.ordered)
        before = self._one(plain, chosen.ordered).score
        if first.score - before < _FIRST_LAYER_SHARE * (chosen.score - before):
            return chosen, None
        named = [pair for trial in self._named for pair in combinations(plain, trial, base=self._base)]
        self._try(named, "trying the usual causes")
        promising = self._promising([*named, *self._fitted(plain, named)])
        scaled = self._preferred([self._one(trial, chosen.ordered) for trial in promising])
        if scaled is None or scaled.score < before + LEAST_GAIN:
            blamed = tuple("scaling" if family == "statistics" else family for family in chosen.families)
            return replace(chosen, families=blamed), chosen.score
        return scaled, chosen.score if scaled.score < chosen.score - _TIE else None

    def _fitted(self, base: Trial, known: Iterable[Trial]) -> list[Trial]:
        """Return a trial with a scaling fitted on the few crops, if it does clearly better than the ``known`` ones.

        The fit goes on from the best of these and from the best of all magnitudes, about zero and about the mean.
        """
        score = self._few_scores
        groups = [
            [replace(base, scaling=scaling) for scaling in scalings]
            for scalings in fit_grids(self._sample.statistics, self._inner)
        ]
        for group in groups:
            self._try(group, "fitting mean and deviation")
        named = [trial for trial in known if trial.families(base) == ("scaling",)]
        starts = [max(group, key=lambda trial: score[trial]) for group in (named, *groups) if group]
        best = max((self._refined(start) for start in starts), key=lambda trial: score[trial])
        enough = max((score[trial] for trial in named), default=0.0) + _LEAST_FIT_GAIN
        return [best] if score[best] >= enough else []

    def _refined(self, best: Trial) -> Trial:
        """Return the best on the few crops of a trial and its neighbors, found in ever smaller steps."""
        for factor in FIT_FACTORS:
            near = [
                replace(best, scaling=scaling) for scaling in fit_steps(best.scaling, self._sample.statistics, factor)
            ]
            self._try(near, "fitting mean and deviation")
            best = max([best, *near], key=lambda trial: self._few_scores[trial])
        return best

    def _pairs(self, singles: list[Trial], *, every_scaling: bool) -> list[Trial]:
        """Return pairs of treatments: the best two with the best of every other kind.

        If both scaling and order are wrong, mending one alone may not raise the score: with ``every_scaling`` the other
        order is paired with them all.
        """
        best = self._best_on_few(singles)
        firsts = {trial.families(self._base): trial for trial in reversed(best)}
        pairs = [(one, two) for one in best[:2] for two in firsts.values()]
        if every_scaling and ("order",) in firsts:
            pairs += [(firsts["order",], trial) for trial in singles]
        return list(dict.fromkeys(pair for one, two in pairs for pair in combinations(one, two, base=self._base)))

    def _second(self, pairs: list[_Measured], single: _Measured | None) -> _Measured | None:
        """Return a pair of treatments if it explains clearly more than ``single``."""
        reference, first = (self._matrices, None) if single is None else (single.matrices, single.families)
        adds_order = [first is not None and set(one.families) == {*first, "order"} for one in pairs]
        return self._preferred(
            [
                one
                for one, order in zip(pairs, adds_order, strict=True)
                if self._explains(reference, one, _LEAST_SECOND_GAIN, order=order)
            ]
        )

    def _chosen(self, measured: Iterable[_Measured]) -> _Measured | None:
        return self._preferred(
            [
                one
                for one in measured
                if self._explains(self._matrices, one, LEAST_GAIN, order=one.families == ("order",))
            ]
        )

    def _preferred(self, measured: Sequence[_Measured]) -> _Measured | None:
        """Return the best; among those that are as good the more usual kind of cause, and the more usual of a kind."""
        if not measured:
            return None
        as_good = _within(measured, _TIE)
        families = min((one.families for one in as_good), key=lambda kinds: [FAMILIES.index(kind) for kind in kinds])
        usual = list(self._few_scores)  # in the order in which they were tried
        same = [one for one in measured if one.families == families]
        named = [one for one in _within(same, _LEAST_FIT_GAIN) if not one.trial.fitted]
        return min(_within(named or same, _CLOSE_TIE), key=lambda one: usual.index(one.trial))

    def _explains(
        self, before: Matrices, one: _Measured, least: float, *, order: bool = False, likely: bool = False
    ) -> bool:
        """Tell whether a treatment brings enough, surely, and makes a teacher that isn't poor any more.

        Less is enough where all that it brings is due to exchanged bands (``order``). With ``likely`` it may leave the
        teacher poor, if it brings it a good part of the way.
        """
        gained, sure = gain(before, one.matrices)
        least, least_sure = (_LEAST_ORDER_GAIN, 0.0) if order else (least, LEAST_SURE_GAIN)
        majority = majority_iou(self._matrices)
        reached, needed = level(one.score, majority), POOR_LEVEL
        if likely:
            needed = max(level(mean_iou(before), majority), 0.0) + _LEAST_LIKELY_STEP
        return gained >= least and sure > least_sure and reached >= needed

    def _measured(self, trials: Iterable[Trial]) -> list[_Measured]:
        """Measure treatments on all crops, each with the classes as they are and in their best order."""
        both = [self._one(trial, ordered) for trial in trials for ordered in (False, True)]
        return [one for one in both if one.families]

    def _one(self, trial: Trial, ordered: bool) -> _Measured:
        """Measure one treatment on all crops, with the classes as they are or in their best order."""
        if trial not in self._all:
            self._all[trial] = measure(self._teacher, self._sample, trial, range(len(self._sample)))
        families, matrices = trial.families(self._base), self._all[trial]
        if not ordered:
            return _Measured(trial, False, families, matrices)
        return _Measured(trial, True, (*families, "classes"), reordered(matrices))

    def _promising(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the few treatments that bring most on the few crops, in any class order, if they bring enough.

        The best that isn't fitted is always among them.
        """
        now = self._on_few(self._base)
        self._try(trials, "trying the usual causes")
        best = [trial for trial in self._best_on_few(trials) if self._few_scores[trial] >= now + _PROMISING]
        named = [trial for trial in best if not trial.fitted]
        return list(dict.fromkeys([*best[:_CONFIRMED], *named[:1]]))

    def _try(self, trials: Sequence[Trial], doing: str) -> None:
        for number, trial in enumerate(trials):
            self._on_few(trial)
            if self._progress is not None:
                self._progress(number + 1, len(trials), doing)

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
