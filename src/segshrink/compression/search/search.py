"""From a teacher and images to the most accurate model within a budget.

Candidates are measured with random weights first (minutes, no training), a few that fit are distilled, exported and
quantized, and the files themselves are scored and measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segshrink.compression.budget import Budget, UnmetBudgetError
from segshrink.compression.search import results
from segshrink.compression.search.candidates import (
    Candidate,
    CandidateFile,
    CandidateResult,
    Reference,
    Status,
    list_candidates,
)
from segshrink.compression.search.selection import (
    nearest_file,
    nearest_untrained,
    prunings,
    shortlist,
    unmet_message,
)
from segshrink.errors import ConfigError, FileError, ModelError, SegshrinkError, TrainingError, UsageError, nearest

if TYPE_CHECKING:
    from segshrink.compression.search.stages import SearchStages

RUNTIMES = ("onnxruntime", "openvino")
# ``show(text)`` opens a progress bar, which gives ``advance(done, total, note="")``.
Advance = Callable[..., None]
Show = Callable[[str], AbstractContextManager[Advance]]
# What quantization may cost in points of mIoU, where the budget leaves that open.
_USUAL_DROP, _SMALLEST_DROP = 0.5, 0.1
# How often a candidate is pruned further, where it still is beyond a limit.
_PRUNINGS = 3


@dataclass(frozen=True)
class Settings:
    """How a search goes about it.

    Attributes:
        runtimes: What the small model will run on: "onnxruntime", "openvino", or both.
        size: Side in pixels of the square image that latency and memory are measured with.
        threads: Of the runtime; None takes all cores.
        families: Networks to look at; None takes the student's family and ours.
        candidates: How many to distill at most.
    """

    runtimes: tuple[str, ...] = ("onnxruntime",)
    size: int = 512
    threads: int | None = None
    families: tuple[str, ...] | None = None
    candidates: int = 3

    def __post_init__(self) -> None:
        if unknown := [name for name in self.runtimes if name not in RUNTIMES]:
            raise UsageError(f"unknown runtime '{unknown[0]}'{nearest(unknown[0], RUNTIMES)}")
        if not self.runtimes:
            raise ConfigError(f"no runtime is named; give one of {', '.join(RUNTIMES)}")
        for name, value, lowest in (
            ("size", self.size, 32),
            ("candidates", self.candidates, 1),
            ("threads", self.threads, 1),
        ):
            if value is not None and value < lowest:
                raise ConfigError(f"{name} must be at least {lowest}, found {value}")


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        results: All candidates.
        chosen: The one with the most accurate file within the limits.
        file: Which of its files, as it was measured.
        model: The same file under its name in the folder of the search.
        content: What ``pareto.json`` holds: all files beside the teacher, and every candidate.
    """

    results: tuple[CandidateResult, ...]
    chosen: CandidateResult
    file: CandidateFile
    model: Path
    content: dict[str, Any]


@contextmanager
def silent(text: str) -> Iterator[Advance]:  # a bar's name
    """Show nothing."""
    yield lambda done, total, note="": None


def compress(stages: SearchStages, budget: Budget, *, out: Path, resume: bool = False) -> Outcome:
    """Find the most accurate model within a budget that is measured on this machine.

    Writes into ``out``: ``candidates.json`` (every candidate, what it costs, what became of it), and at the end
    ``pareto.json``, ``compress.md``, ``pareto.png``, ``chosen.json`` and the chosen model.

    Args:
        stages: Measure, train and export by a recipe and settings, and keep what they did.
        budget: The limits.
        out: Folder to write.
        resume: Go on with the search in ``out``; without it a folder that holds one is refused.

    Raises:
        UnmetBudgetError: No candidate keeps the limits: before any training where no weights would help.
        ConfigError: The recipe has no student or no teacher.
        FileError: ``out`` holds a search and ``resume`` is not given, or can't be written.
    """
    recipe = stages.recipe
    if recipe.student is None:
        raise ConfigError(f"recipe '{recipe.name}' has no 'student' section; add one to say how students are trained")
    if recipe.teacher is None and not recipe.distillation.teachers:
        raise ConfigError(f"recipe '{recipe.name}' names no teacher and has no 'teacher' section; give --teacher")
    if (out / results.CANDIDATES).exists() and not resume:
        raise FileError(f"{out} already holds a search; add --resume to go on with it, or choose another folder")
    search = _Search(stages, budget, out)
    search.measure(list_candidates(recipe.student.model, stages.settings.families))
    chosen = search.select()
    reference = stages.prepare_teacher()
    return search.choose(*search.build(chosen, reference))


@dataclass
class _Search:
    """A search under way; ``table`` holds the results by the names of the candidates, in order."""

    stages: SearchStages
    budget: Budget
    out: Path
    table: dict[str, CandidateResult] = field(default_factory=dict)

    def measure(self, candidates: Sequence[Candidate]) -> None:
        """Measure all candidates untrained, and pruned ones where that may bring them within the limits."""
        self._measure(candidates, "measure candidates")
        if not any(result.untrained for result in self.table.values()):
            first = next(iter(self.table.values()))
            raise ModelError(f"no candidate could be measured; the first, {first.name}: {first.reason}")
        for _ in range(_PRUNINGS):
            proposals = prunings(list(self.table.values()), self.budget)
            if not proposals:
                return
            self._measure(proposals, "measure pruned")

    def select(self) -> list[CandidateResult]:
        """Return the candidates to distill; those that can't keep the limits get the reason as their status."""
        nearest = [nearest_untrained(result, self.budget) for result in self.table.values() if result.untrained]
        for candidate in nearest:
            if candidate.violations:
                self._put(candidate.result.with_status("unfit", candidate.reason))
        fitting = [candidate.result for candidate in nearest if not candidate.violations]
        chosen = shortlist(fitting, self.stages.settings.candidates)
        for result in fitting:
            if result not in chosen:
                self._put(result.with_status("not distilled", f"not among the {len(chosen)} to distill"))
        self._save()
        if not fitting:
            raise UnmetBudgetError(unmet_message(nearest, self.budget, trained=False))
        return chosen

    def build(self, chosen: Sequence[CandidateResult], reference: Reference) -> tuple[list[CandidateResult], Reference]:
        """Distill, export, quantize and score the chosen candidates; measure all files anew beside the teacher."""
        built = []
        failure: SegshrinkError | None = None
        for result in chosen:
            try:
                distilled = self._distill(result)
                built.append(self._put(self.stages.build(distilled, max_drop=self._max_drop(distilled, reference))))
            except (ConfigError, ModelError, TrainingError) as error:
                failure = error
                self._put(self.table[result.name].with_status("failed", str(error)))
            self._save()
        if not built and failure is not None:
            raise failure
        measured, reference = self.stages.measure_final(built, reference)
        for result in measured:
            self._put(result if result.files else result.with_status("failed", "; ".join(result.refused)))
        if not any(result.files for result in measured):
            self._save()
            raise ModelError(f"no file of a candidate could be run: {'; '.join(measured[0].refused)}")
        return [result for result in measured if result.files], reference

    def choose(self, measured: Sequence[CandidateResult], reference: Reference) -> Outcome:
        """Choose the most accurate file within the budget, give every candidate its status, and write the results."""
        nearest = [
            nearest_file(result, result.files, self.budget, teacher_iou=reference.mean_iou) for result in measured
        ]
        within = [candidate for candidate in nearest if not candidate.violations]
        best = max(within, key=lambda each: (each.file.mean_iou or 0.0, -each.file.latency_ms), default=None)
        for candidate in nearest:
            status: Status = "missed" if candidate.violations else "within"
            reason = f"distilled, but {candidate.reason}"
            if candidate is best:
                status, reason = "chosen", f"the most accurate within the budget ({candidate.file.label})"
            elif not candidate.violations:
                reason = "within the budget, but less accurate"
            self._put(candidate.result.with_status(status, reason))
        self._save()
        table, file = tuple(self.table.values()), None if best is None else best.file
        content = results.to_dict(self.stages.recipe.data, self.budget, self.stages.settings, reference, table, file)
        model = results.write(self.out, content, file)
        if best is None or model is None:
            raise UnmetBudgetError(unmet_message(nearest, self.budget, trained=True))
        return Outcome(table, self.table[best.result.name], best.file, model, content)

    def _measure(self, candidates: Sequence[Candidate], title: str) -> None:
        with self.stages.show(title) as advance:
            for number, candidate in enumerate(candidates, start=1):
                try:
                    self._put(self.stages.measure(candidate))
                except ModelError as error:
                    self._put(CandidateResult(candidate, status="failed", reason=str(error)))
                advance(number, len(candidates), candidate.name)

    def _distill(self, result: CandidateResult) -> CandidateResult:
        """Distill a candidate; one that is pruned needs what it is pruned from distilled before."""
        base = None
        if result.candidate.pruned_from is not None:
            base = self.table[result.candidate.pruned_from]
            if base.run is None:
                trained = self.stages.distill(base, None)
                if trained.status == "unfit":
                    trained = trained.with_status("unfit", f"{base.reason}; trained to be pruned")
                base = self._put(trained)
                self._save()
        distilled = self._put(self.stages.distill(result, base).with_status("distilled", "distilled"))
        self._save()
        return distilled

    def _max_drop(self, result: CandidateResult, reference: Reference) -> float:
        """Return what quantization may cost: what the budget leaves after the distilled model's drop."""
        limit = self.budget.limit("drop")
        if limit is None or result.mean_iou is None:
            return _USUAL_DROP
        left = limit - 100 * (reference.mean_iou - result.mean_iou)
        return min(_USUAL_DROP, max(_SMALLEST_DROP, left))

    def _put(self, result: CandidateResult) -> CandidateResult:
        self.table[result.name] = result
        return result

    def _save(self) -> None:
        results.write_candidates(self.out, self.budget, tuple(self.table.values()))
