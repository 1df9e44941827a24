"""Which candidates fit, which are worth a training, which is chosen, and what to say about the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segshrink.compression.budget import Budget, Violation
from segshrink.compression.search.candidates import Candidate, CandidateFile, CandidateResult, pruned
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
# Candidates aren't pruned below this share of their multiply-accumulates.
_LEAST_SHARE = 0.2
_PRUNED_WHERE_OTHERS_FIT, _PRUNED_WHERE_NONE_FITS = 1, 3


@dataclass(frozen=True)
class OverBudget:
    """The file of a candidate that came nearest to a budget, and the limits it breaks, if any."""

    result: CandidateResult
    file: CandidateFile
    violations: tuple[Violation, ...]

    @property
    def excess(self) -> float:
        """How far it is beyond the limit that it breaks most; 0 when it keeps all."""
        return max((violation.excess for violation in self.violations), default=0.0)

    @property
    def reason(self) -> str:
        """Such as "too slow: latency 31 ms > 20 ms (int8 on onnxruntime)"."""
        reasons = "; ".join(f"{_TOO[violation.limit.name]}: {violation}" for violation in self.violations)
        return f"{reasons} ({self.file.label}{self.doubt})"

    @property
    def doubt(self) -> str:
        """What other programs took of the cores while its latency was measured, where that was much."""
        too_slow = any(violation.limit.name == "latency" for violation in self.violations)
        busy = too_slow and is_busy(self.file.load)
        return f", measured while other programs took {self.file.load:.0%} of the cores" if busy else ""


def nearest_file(
    result: CandidateResult, files: Sequence[CandidateFile], budget: Budget, *, teacher_iou: float | None = None
) -> OverBudget:
    """Return the file of a candidate that comes nearest to a budget; of those that keep it, the most accurate.

    Args:
        result: The candidate.
        files: Its files, at least one.
        budget: The limits; those on accuracy are judged where a file was scored.
        teacher_iou: What a drop is counted from.
    """
    judged = [
        OverBudget(result, file, budget.violations(result.values(file, teacher_iou=teacher_iou))) for file in files
    ]
    return min(judged, key=lambda nearest: (nearest.excess, -(nearest.file.mean_iou or 0.0), nearest.file.latency_ms))


def nearest_untrained(result: CandidateResult, budget: Budget) -> OverBudget:
    """Return the untrained file that comes nearest to the limits that no training changes."""
    return nearest_file(result, result.untrained, budget.untrained())


def shortlist(results: Sequence[CandidateResult], count: int) -> list[CandidateResult]:
    """Choose which candidates to distill among those that fit.

    The recipe's student first; then the strongest of each family in turn. Networks that start from trained weights
    count as stronger; otherwise the geometric mean of parameters and operations decides.

    Args:
        results: Candidates that fit.
        count: How many, at least 1.
    """
    queue = [result for result in results if result.candidate.from_recipe]
    student_families = [result.candidate.family for result in queue]
    families: dict[str, list[CandidateResult]] = {}
    for result in sorted((result for result in results if result not in queue), key=_strength, reverse=True):
        families.setdefault(result.candidate.family, []).append(result)
    # The family of the recipe's student comes last: it is in the queue already.
    order = sorted(families, key=lambda family: family in student_families)
    while any(families.values()):
        queue.extend(families[family].pop(0) for family in order if families[family])
    return queue[:count]


def prunings(results: Sequence[CandidateResult], budget: Budget) -> list[Candidate]:
    """Propose pruned candidates: of the best that are slightly beyond a limit, or of all near ones where none fits.

    What was pruned before and still is beyond it is to be pruned further, as long as enough of its base is left.
    """
    measured = [result for result in results if result.untrained]
    bases = [nearest_untrained(result, budget) for result in measured if result.candidate.pruned_from is None]
    none_fits = all(base.violations for base in bases)
    near = [
        base
        for base in bases
        if 0 < base.excess <= (FAR if none_fits else SLIGHTLY) and (none_fits or base.result.candidate.keeps_weights)
    ]
    near.sort(key=(lambda base: base.excess) if none_fits else (lambda base: -_capacity(base.result)))
    proposals = []
    for base in near[: _PRUNED_WHERE_NONE_FITS if none_fits else _PRUNED_WHERE_OTHERS_FIT]:
        smallest = min(
            (result for result in measured if result.candidate.pruned_from == base.result.name),
            key=lambda result: result.macs,
            default=base.result,
        )
        excess = nearest_untrained(smallest, budget).excess
        share = _MARGIN / (1 + excess) * smallest.macs / base.result.macs
        if excess > 0 and share >= _LEAST_SHARE:
            proposals.append(pruned(base.result.candidate, macs=math.floor(share * base.result.macs), share=share))
    return proposals


def unmet_message(candidates: Sequence[OverBudget], budget: Budget, *, trained: bool) -> str:
    """Say in one sentence which limit binds and what came nearest.

    Args:
        candidates: The nearest file of every candidate, at least one.
        budget: The budget.
        trained: Whether candidates were trained; else the budget is out of reach whatever is trained.
    """
    nearest = min(candidates, key=lambda candidate: candidate.excess)
    binding = max(nearest.violations, key=lambda violation: violation.excess)
    broken = [{violation.limit.name for violation in candidate.violations} for candidate in candidates]
    kept = [
        f"{limit} is kept by {sum(limit.name not in names for names in broken)} of {len(candidates)}"
        for limit in budget.untrained().limits
    ]
    remedy = (
        "loosen it, distill more candidates (--candidates), or train longer"
        if trained
        else f"nothing was trained ({', '.join(kept)}); loosen it, or offer smaller networks (--families)"
    )
    return (
        f"no candidate meets the budget '{budget}': {binding.limit} binds; the nearest, {nearest.result.name} "
        f"({nearest.file.label}{nearest.doubt}), reaches {binding}; {remedy}"
    )


def front_costs(file: CandidateFile) -> tuple[float, ...]:
    """Return what a file is compared by on the Pareto front, the less the better: lost accuracy, latency and size."""
    return (-(file.mean_iou or 0.0), file.latency_ms, file.size_bytes)


def _strength(result: CandidateResult) -> tuple[bool, float]:
    return result.candidate.keeps_weights or result.candidate.pruned_from is not None, _capacity(result)


def _capacity(result: CandidateResult) -> float:
    return math.sqrt(result.parameters * result.macs)
