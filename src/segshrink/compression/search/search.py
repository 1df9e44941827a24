"""From a teacher and images to the most accurate model within a budget.

Candidates are measured with random weights first (minutes, no training), a few that fit are distilled, exported and
quantised, and the files themselves are scored and measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segshrink.compression.budget import Budget, UnmetBudgetError
from segshrink.compression.search import results
from segshrink.compression.search.candidates import Candidate, list_candidates, pruned
from segshrink.compression.search.records import Entry, Ledger, MeasuredFile, Reference
from segshrink.compression.search.selection import fits, nearest_file, prunings, shortlist, unmet
from segshrink.compression.search.tools import Settings, Show, Tools, silent
from segshrink.config import DatasetDescription, Recipe
from segshrink.errors import ConfigError, FileError, ModelError, SegshrinkError, TrainingError

# What quantisation may cost in points of mIoU, where the budget leaves that open.
_USUAL_DROP, _SMALLEST_DROP = 0.5, 0.1
# How often a candidate is pruned further, where it still is beyond a limit.
_PRUNINGS = 3


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        out: Its folder.
        found: The teacher, all candidates, and what they cost.
        chosen: The most accurate within the limits.
        file: Which of its files, as it was measured.
        model: The same file under its name in ``out``.
    """

    out: Path
    found: results.Findings
    chosen: Entry
    file: MeasuredFile
    model: Path


def compress(
    recipe: Recipe,
    budget: Budget,
    *,
    out: Path,
    tools: Tools,
    settings: Settings | None = None,
    resume: bool = False,
    show: Show = silent,
) -> Outcome:
    """Find the most accurate model within a budget that is measured on this machine.

    Writes into ``out``: ``candidates.json`` (every candidate, what it costs, what became of it), and at the end
    ``pareto.json``, ``compress.md``, ``pareto.png``, ``chosen.json`` and the chosen model.

    Args:
        recipe: Teacher, student, data and settings of the distillation.
        budget: The limits.
        out: Folder to write.
        tools: Do the work, and keep what they did.
        settings: How to search.
        resume: Go on with the search in ``out``; without it a folder that holds one is refused.
        show: Opens progress bars.

    Raises:
        UnmetBudgetError: No candidate keeps the limits: before any training where no weights would help.
        ConfigError: The recipe has no student or no teacher.
        FileError: ``out`` holds a search and ``resume`` is not given, or can't be written.
    """
    if recipe.student is None:
        raise ConfigError(f"recipe '{recipe.name}' has no 'student' section; add one to say how students are trained")
    if recipe.teacher is None and not recipe.distillation.teachers:
        raise ConfigError(f"recipe '{recipe.name}' names no teacher and has no 'teacher' section; give --teacher")
    if (out / results.CANDIDATES).exists() and not resume:
        raise FileError(f"{out} already holds a search; add --resume to go on with it, or choose another folder")
    search = _Search(recipe.data, budget, out, tools, settings or Settings(), Ledger(), show)
    search.measure(list_candidates(recipe.student.model, search.settings.families))
    chosen = search.select()
    reference = tools.teach()
    entries, weighed = search.finish(chosen, reference)
    return search.conclude(entries, weighed)


@dataclass
class _Search:
    """A search under way."""

    data: DatasetDescription
    budget: Budget
    out: Path
    tools: Tools
    settings: Settings
    ledger: Ledger
    show: Show

    def measure(self, candidates: Sequence[Candidate]) -> None:
        """Measure all candidates untrained, and pruned ones where that may bring them within the limits."""
        with self.show("measure candidates") as advance:
            for number, candidate in enumerate(candidates, start=1):
                self._measure(candidate, None)
                advance(number, len(candidates), candidate.name)
        if not any(entry.untrained for entry in self.ledger):
            first = next(iter(self.ledger))
            raise ModelError(f"no candidate could be measured; the first, {first.name}: {first.reason}")
        for _ in range(_PRUNINGS):
            proposed = prunings(list(self.ledger), self.budget)
            if not proposed:
                return
            with self.show("measure pruned") as advance:
                for number, pruning in enumerate(proposed, start=1):
                    base = pruning.entry.candidate
                    self._measure(pruned(base, macs=pruning.macs, share=pruning.share), base)
                    advance(number, len(proposed), base.name)

    def select(self) -> list[Entry]:
        """Say which candidates to distil; those that can't keep the limits are marked with the reason."""
        measured = [entry for entry in self.ledger if entry.untrained]
        limits = self.budget.untrained()
        fitting, misses = [], []
        for entry in measured:
            if fits(entry, self.budget):
                fitting.append(entry)
                continue
            misses.append(nearest_file(entry, entry.untrained, limits, None))
            self.ledger.mark(entry.name, "unfit", misses[-1].reason)
        self._save()
        if not fitting:
            raise UnmetBudgetError(unmet(misses, self.budget, trained=False))
        chosen = shortlist(fitting, self.settings.candidates)
        for entry in fitting:
            if entry not in chosen:
                self.ledger.mark(entry.name, "not distilled", f"not among the {len(chosen)} to distil")
        self._save()
        return chosen

    def finish(self, chosen: Sequence[Entry], reference: Reference) -> tuple[list[Entry], Reference]:
        """Distil, export, quantise and score the chosen candidates; measure all files anew beside the teacher."""
        finished = []
        failure: SegshrinkError | None = None
        for entry in chosen:
            try:
                distilled = self._distil(entry)
                self._save()
                max_drop = self._max_drop(distilled, reference)
                finished.append(self.ledger.put(self.tools.build(distilled, max_drop=max_drop)))
            except (ConfigError, ModelError, TrainingError) as error:
                failure = error
                self.ledger.mark(entry.name, "failed", str(error))
            self._save()
        if not finished and failure is not None:
            raise failure
        weighed, reference = self.tools.weigh(finished, reference)
        for entry in weighed:
            self.ledger.put(entry)
            if not entry.files:
                self.ledger.mark(entry.name, "failed", "; ".join(entry.refused))
        if not any(entry.files for entry in weighed):
            self._save()
            raise ModelError(f"no file of a candidate could be run: {'; '.join(weighed[0].refused)}")
        return [entry for entry in weighed if entry.files], reference

    def conclude(self, entries: Sequence[Entry], reference: Reference) -> Outcome:
        """Choose, mark every candidate, and write the results."""
        misses = [nearest_file(entry, entry.files, self.budget, reference) for entry in entries]
        within = [miss for miss in misses if not miss.breaches]
        for miss in misses:
            told = "within the budget, but less accurate" if not miss.breaches else f"distilled, but {miss.reason}"
            self.ledger.mark(miss.entry.name, "missed" if miss.breaches else "within", told)
        best = max(within, key=lambda miss: (miss.file.mean_iou or 0.0, -miss.file.latency_ms), default=None)
        if best is not None:
            self.ledger.mark(best.entry.name, "chosen", f"the most accurate within the budget ({best.file.label})")
        self._save()
        found = results.Findings(
            self.data, self.budget, self.settings, reference, tuple(self.ledger), best.file if best else None
        )
        model = results.write(self.out, found)
        if best is None or model is None:
            raise UnmetBudgetError(unmet(misses, self.budget, trained=True))
        chosen = self.ledger.entries[best.entry.name]
        return Outcome(self.out, found, chosen, best.file, model)

    def _measure(self, candidate: Candidate, base: Candidate | None) -> None:
        try:
            self.ledger.put(self.tools.measure(candidate, base))
        except ModelError as error:
            self.ledger.put(Entry(candidate, status="failed", reason=str(error)))

    def _distil(self, entry: Entry) -> Entry:
        """Distil a candidate; one that is pruned needs what it is pruned from distilled before."""
        base = None
        if entry.candidate.pruned_from is not None:
            base = self.ledger.entries[entry.candidate.pruned_from]
            if base.run is None:
                trained = self.tools.distil(base, None)
                base = self.ledger.put(
                    trained
                    if trained.status != "unfit"
                    else trained.marked("unfit", f"{base.reason}; trained to be pruned")
                )
                self._save()
        return self.ledger.put(self.tools.distil(entry, base).marked("distilled", "distilled"))

    def _max_drop(self, entry: Entry, reference: Reference) -> float:
        """Return what quantisation may cost: what the budget leaves after the distilled model's own drop."""
        limit = self.budget.limit("drop")
        if limit is None or entry.mean_iou is None:
            return _USUAL_DROP
        left = limit - 100 * (reference.mean_iou - entry.mean_iou)
        return min(_USUAL_DROP, max(_SMALLEST_DROP, left))

    def _save(self) -> None:
        results.write_candidates(self.out, self.budget, tuple(self.ledger))
