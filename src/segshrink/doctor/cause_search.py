"""The search for what explains a teacher's bad score: input variants are tried on few crops, the best on all.

A scaling that nobody has a name for is fitted. Batch statistics undo any scaling of pixels, so where they help most the
scaling is suspected: it is to blame if those of the first layer alone help as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from segshrink.doctor.input_variants import KINDS, InputVariant, Scaling, VariantScores, fit_grids, fit_neighbors
from segshrink.doctor.sample import Matrices, best_order, gain, level, mean_iou, reordered
from segshrink.errors import SegshrinkError

# Called with (done, of how many, what is being done).
Progress = Callable[[int, int, str], None]

# Below this share of the way from the most frequent class everywhere to perfect a teacher is poor.
POOR_LEVEL = 0.25
# Gains of mIoU: a cause brings at least ``_LEAST_GAIN``, a second one, or a fitted scaling over those with a name, a
# ``CLEAR_GAIN`` more. So does another size: many networks gain a little by it, trained for it or not. Exchanged bands
# are a single variant, not the best of many, and a sound teacher loses by them; one trained on varied colors gains
# little: a ``_SMALL_GAIN`` is enough, as it is for a closer look.
_SMALL_GAIN, _LEAST_GAIN, CLEAR_GAIN = 0.03, 0.05, 0.1
# Lower end of the 95 % interval, over crops, of a cause's gain; of exchanged bands 0.
_LEAST_SURE_GAIN = 0.02
# Causes within this much mIoU of the best explain as much; the more usual one is named.
_TIE = 0.02
# Share of what batch statistics bring that those of the first layer alone bring where the scaling is to blame.
_FIRST_LAYER_SHARE = 0.7
# Variants are tried on a sixth of the crops, at least so many; so many promising ones go on to all crops.
_FEWEST_CROPS, _CONFIRMED = 4, 3
# A variant that is this much mIoU behind the best on half of the few crops isn't tried on the other half.
_FAR_BEHIND = 0.3
# Kinds that are looked at together with a first cause.
_SECOND_KINDS = ("scaling", "order", "size")
# Pairs that may stand for exchanged bands with another scaling.
_MISTAKEN = ({"scaling", "order"}, {"scaling", "classes"})


@dataclass(frozen=True)
class Cause:
    """What may explain a teacher's score: an input variant, an order of classes, or both.

    Attributes:
        kinds: The kinds of cause, in the order of ``KINDS``; two where only both together explain it.
        variant: How the teacher is used.
        order: For each class of the student, the teacher's channel (in the student's order) that stands for it; None
            where the order is right.
        matrices: Confusion matrices (n, C, C) of all crops then.
    """

    kinds: tuple[str, ...]
    variant: InputVariant
    order: tuple[int, ...] | None
    matrices: Matrices

    @property
    def score(self) -> float:
        """Mean IoU that the teacher reaches."""
        return mean_iou(self.matrices)


class CauseSearch:
    """Finds what explains a teacher's score.

    Args:
        scores: The teacher's scores, those of ``base`` on all crops among them.
        base: How it is used now.
        singles: The variants that differ from that in one respect, the usual ones first.
        inner: What the teacher is known to do to pixels.
        progress: Called after every variant with (variants tried, variants in all, what is being done).
    """

    def __init__(
        self,
        scores: VariantScores,
        *,
        base: InputVariant,
        singles: Sequence[InputVariant],
        inner: Scaling,
        progress: Progress | None = None,
    ) -> None:
        self._scores, self._base, self._singles, self._inner = scores, base, singles, inner
        self._progress = progress
        self._matrices = scores.of(base)
        self._few = min(len(self._matrices), max(_FEWEST_CROPS, len(self._matrices) // 6))
        self._screened: dict[InputVariant, float] = {}
        self._best_half = 0.0

    def run(self) -> Cause | None:
        """Return what explains the score, or None.

        What explains much of it is looked at together with other scalings, orders and sizes. If both scaling and order
        are wrong, fixing one alone may not raise the score: where nothing explains a poor one, exchanged bands are
        looked at with every scaling; then what leaves it poor, but less so, is likely.
        """
        poor = level(self._matrices) < POOR_LEVEL
        causes = [*self._causes([self._base]), *self._round(self._base, self._singles)]
        first = self._preferred(cause for cause in causes if len(cause.kinds) == 1 and self._explains(cause))
        seconds = [variant for kind in _SECOND_KINDS for variant in self._singles_of(kind)]
        exchanged = self._singles_of("order")
        if first is not None and first.score <= 1 - CLEAR_GAIN:
            causes += self._round(first.variant, seconds)
        elif first is None and poor:
            causes += [cause for variant in exchanged for cause in self._round(variant, seconds)]
        second = self._second(causes, first)
        if first is not None and second is not None and {*second.kinds} in _MISTAKEN:
            # The scaling was chosen beside the wrong order of bands, which an order of classes may make up for.
            causes += [cause for variant in exchanged for cause in self._round(variant, seconds)]
            second = self._second(causes, first)
        chosen = second or first
        if chosen is None and poor:
            chosen = self._preferred(cause for cause in causes if self._explains(cause, likely=True))
        return chosen and self._blamed(chosen)

    def _second(self, causes: Iterable[Cause], first: Cause | None) -> Cause | None:
        pairs = [cause for cause in causes if len(cause.kinds) == 2]
        return self._preferred(cause for cause in pairs if self._explains(cause, besides=first))

    def _round(self, start: InputVariant, others: Sequence[InputVariant]) -> list[Cause]:
        """Combine a variant with others, try them on few crops, and measure what is promising on all.

        Scalings are fitted where the start leaves the teacher poor, or where one helps. Exchanged bands are measured
        on all crops unless they are clearly worse on few: their gain may be small.
        """
        variants = [pair for other in others for pair in start.combined(other, self._base)]
        promising = self._promising(variants, start)
        scaled = any({"scaling", "statistics"} & {*variant.kinds(start)} for variant in promising)
        if scaled or level(self._scores.of(start)) < POOR_LEVEL:
            variants += self._fitted(start, variants)
            promising = self._promising(variants, start)
        exchanged = [variant for variant in variants if "order" in variant.kinds(start)]
        least = self._on_few(start) - _SMALL_GAIN
        return self._causes([*promising, *(variant for variant in exchanged if self._on_few(variant) >= least)])

    def _singles_of(self, kind: str) -> list[InputVariant]:
        return [variant for variant in self._singles if variant.kinds(self._base) == (kind,)]

    def _blamed(self, chosen: Cause) -> Cause:
        """Return the scaling that batch statistics undo, if that is all they do; else the cause itself."""
        if chosen.variant.statistics != "batch" or "scaling" in chosen.kinds:
            return chosen
        ordered = chosen.order is not None
        plain = replace(chosen.variant, statistics=self._base.statistics)
        before = self._cause(plain, ordered).score
        first_layer = self._cause(replace(plain, statistics="first"), ordered).score
        if first_layer - before < _FIRST_LAYER_SHARE * (chosen.score - before):
            return chosen
        named = [pair for variant in self._singles_of("scaling") for pair in plain.combined(variant, self._base)]
        promising = self._promising([*named, *self._fitted(plain, named)], plain)
        scaled = self._preferred(self._cause(variant, ordered) for variant in promising)
        if scaled is not None and scaled.score >= before + _LEAST_GAIN:
            return scaled
        return replace(chosen, kinds=tuple("scaling" if kind == "statistics" else kind for kind in chosen.kinds))

    def _fitted(self, start: InputVariant, others: Iterable[InputVariant]) -> list[InputVariant]:
        """Return a variant with a scaling fitted on the few crops, if it does clearly better than the ``others``.

        The fit goes on, in ever smaller steps, from the best of these and from the best of all magnitudes, about zero
        and about the mean.
        """
        if start.scaling != self._base.scaling or start.statistics == "batch":
            return []
        named = [variant for variant in others if variant.kinds(start) == ("scaling",)]
        grids = fit_grids(self._scores.sample.statistics, self._inner)
        groups = [named, *([replace(start, scaling=scaling) for scaling in grid] for grid in grids)]
        for group in groups:
            self._try(group)
        coarse = [self._refined(max(group, key=self._on_few), factors=(2.0, 1.4)) for group in groups if group]
        best = self._refined(max(coarse, key=self._on_few), factors=(1.2,))
        enough = max([0.0, *map(self._on_few, named)]) + CLEAR_GAIN
        return [best] if self._on_few(best) >= enough else []

    def _refined(self, best: InputVariant, *, factors: Iterable[float]) -> InputVariant:
        """Return the best of a variant and those with a mean and deviation near its own, coarse to fine."""
        for factor in factors:
            scalings = fit_neighbors(best.scaling, self._scores.sample.statistics, factor)
            near = [replace(best, scaling=scaling) for scaling in scalings]
            self._try(near)
            best = max([best, *near], key=self._on_few)
        return best

    def _promising(self, variants: Sequence[InputVariant], start: InputVariant) -> list[InputVariant]:
        """Return the few variants that bring most on the few crops, if more than ``start``, in the order given.

        The best that isn't fitted is always among them.
        """
        enough = self._on_few(start) + _SMALL_GAIN
        self._try(variants)
        better = [variant for variant in variants if self._on_few(variant) >= enough]
        best = sorted(better, key=self._on_few, reverse=True)
        chosen = {*best[:_CONFIRMED], *[variant for variant in best if not variant.fitted][:1]}
        return [variant for variant in variants if variant in chosen]

    def _try(self, variants: Sequence[InputVariant]) -> None:
        for number, variant in enumerate(variants):
            self._on_few(variant)
            if self._progress is not None:
                self._progress(number + 1, len(variants), "trying the usual causes")

    def _on_few(self, variant: InputVariant) -> float:
        """Return a variant's score on the few crops, in the best class order.

        It is negative where the variant is far behind on half of them, or the teacher can't take it: a network of fixed
        size, say.
        """
        if variant not in self._screened:
            try:
                half = self._ordered_score(variant, self._few // 2)
                self._best_half = max(self._best_half, half)
                behind = half < self._best_half - _FAR_BEHIND
                self._screened[variant] = half - 1 if behind else self._ordered_score(variant, self._few)
            except (RuntimeError, ValueError, SegshrinkError):
                self._screened[variant] = -1.0
        return self._screened[variant]

    def _ordered_score(self, variant: InputVariant, crops: int) -> float:
        matrices = self._scores.of(variant, crops)
        return max(mean_iou(matrices), mean_iou(matrices[:, :, list(best_order(matrices))]))

    def _causes(self, variants: Iterable[InputVariant]) -> list[Cause]:
        """Measure variants on all crops, each with the classes as they are and in their best order."""
        distinct = dict.fromkeys(variants)
        causes = [self._cause(variant, ordered) for variant in distinct for ordered in (False, True)]
        return [cause for cause in causes if cause.kinds]

    def _cause(self, variant: InputVariant, ordered: bool) -> Cause:
        """Measure a variant on all crops, with the classes as they are or in their best order."""
        matrices, kinds = self._scores.of(variant), variant.kinds(self._base)
        if not ordered:
            return Cause(kinds, variant, None, matrices)
        return Cause((*kinds, "classes"), variant, best_order(matrices), reordered(matrices))

    def _explains(self, cause: Cause, *, besides: Cause | None = None, likely: bool = False) -> bool:
        """Tell whether a cause brings enough, surely, and makes a teacher that isn't poor any more.

        Args:
            cause: One kind, or two, which must bring clearly more than ``besides``.
            besides: A cause of one kind that explains some of it.
            likely: Let it leave the teacher poor, if it brings it a good part of the way.
        """
        before = self._matrices if besides is None else besides.matrices
        gained, sure = gain(before, cause.matrices)
        least = _LEAST_GAIN if likely or (len(cause.kinds) == 1 and cause.kinds != ("size",)) else CLEAR_GAIN
        least_sure = _LEAST_SURE_GAIN
        if {*cause.kinds} - {*(besides.kinds if besides else ())} == {"order"}:
            least, least_sure = _SMALL_GAIN, 0.0
        needed = max(level(before), 0.0) + CLEAR_GAIN if likely else POOR_LEVEL
        return gained >= least and sure > least_sure and level(cause.matrices) >= needed

    def _preferred(self, causes: Iterable[Cause]) -> Cause | None:
        """Return the best; among those that are as good the more usual kind, and of a kind the more usual."""
        causes = list(causes)
        if not causes:
            return None
        best = max(cause.score for cause in causes)
        as_good = [cause.kinds for cause in causes if cause.score >= best - _TIE]
        kinds = min(as_good, key=lambda kinds: [KINDS.index(kind) for kind in kinds])
        alike = [cause for cause in causes if cause.kinds == kinds]
        named = [cause for cause in alike if not cause.variant.fitted and cause.score >= best - CLEAR_GAIN]
        return max(named or alike, key=lambda cause: round(cause.score, 2))
