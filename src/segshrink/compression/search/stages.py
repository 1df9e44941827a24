"""The work of a search: candidates built, measured, distilled, exported, quantised and scored, all kept for later.

What was done stands in a work folder under the content it depends on, so that an interrupted search goes on where it
was, and searches for several budgets share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from segshrink.compression.pruning.prune import prune
from segshrink.compression.search.candidates import Candidate
from segshrink.compression.search.candidate_files import (
    Exported,
    build_files,
    export_untrained,
    measure_files,
)
from segshrink.compression.search.records import Entry, MeasuredFile, Reference
from segshrink.compression.search.tools import Settings, Show, silent
from segshrink.config import Distillation, ModelChoice, Recipe, TeacherSource, Teaching
from segshrink.data import Dataset, open_dataset
from segshrink.data.calibration import example_pixels
from segshrink.errors import DataError, FileError, ModelError
from segshrink.evaluation import evaluate
from segshrink.files import read_json, scratch_folder, write_json
from segshrink.machine import default_threads, describe_machine, package_versions
from segshrink.model_description import Normalization
from segshrink.model_file import WEIGHTS_FILE
from segshrink.models import SegmentationModel, build_model, count_parameters, load_model
from segshrink.prediction.isolated import check_isolated
from segshrink.profiling.profile import count_macs
from segshrink.records import Record
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher, open_teachers
from segshrink.training import describe_teacher, evaluate_run, profile_runs, train

# Options of a network that fetch weights; an untrained candidate needs none.
_FETCHING = ("weights",)


@dataclass
class Workshop:
    """Does a search's work for one recipe; see ``tools.Tools`` for what each method promises.

    Attributes:
        recipe: Teacher, student, data and settings of the distillation.
        work: Folder that keeps trainings and measurements; several searches may share it.
        settings: How to measure.
        show: Opens progress bars.
    """

    recipe: Recipe
    work: Path
    settings: Settings
    show: Show = silent

    @cached_property
    def dataset(self) -> Dataset:
        """The recipe's data set."""
        return open_dataset(self.recipe.data)

    @cached_property
    def teaching(self) -> Teaching:
        """The recipe's teachers, or its own, which is trained first."""
        teaching = self.recipe.distillation
        if teaching.teachers:
            return teaching
        alone = self.recipe.model_copy(update={"student": None, "distillation": Distillation()})
        run = self.work / f"teacher-run-{_hash(_content(alone))}"
        with self.show("train teacher") as advance:
            train(alone, out=run, role="teacher", resume=True, progress=advance)
        return teaching.model_copy(update={"teachers": [TeacherSource(source=str(run))]})

    @cached_property
    def identity(self) -> str:
        """What the teacher is, exactly."""
        return self._open_teacher().identity

    @cached_property
    def teacher_folder(self) -> Path:
        """Where the teacher's measures stand, as the report reads them."""
        data = self.recipe.data.model_dump(mode="json")
        return self.work / f"teacher-{_hash({'teacher': self.identity, 'data': data})}"

    def measure(self, candidate: Candidate, base: Candidate | None) -> Entry:
        """Build a candidate with random weights and measure its fp32 and int8 files.

        What was measured on a busy machine is not kept for another time.
        """
        store = self.work / "measurements" / f"{candidate.name}-{self._measured_as(candidate)}.json"
        with suppress(FileError):  # what is missing or damaged is measured again
            if (kept := Entry.from_dict(read_json(store))).timed_well:
                return replace(kept, candidate=candidate)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self._untrained(candidate)
            if candidate.macs is not None:
                model = prune(model, macs=candidate.macs, size=self.settings.size)
        with scratch_folder() as scratch:
            files, refused = export_untrained(model, scratch, self.settings.runtimes)
            measured, _ = measure_files(files, self.settings, quick=True)
        files_kept, failed = _sorted_out(measured)
        refused += failed
        if not files_kept:
            raise ModelError("; ".join(refused))
        entry = Entry(
            candidate,
            parameters=count_parameters(model),
            macs=count_macs(model, size=self.settings.size),
            untrained=tuple(replace(file, path=None) for file in files_kept),
            refused=tuple(refused),
        )
        if not refused and entry.timed_well:  # what failed may be mended, and the machine may be quiet next time
            write_json(store, entry.to_dict())
        return entry

    def teach(self) -> Reference:
        """Train the recipe's teacher where none is named, and evaluate it."""
        folder = RunFolder(self.teacher_folder)
        teacher = self._open_teacher()
        if not folder.has_evaluation:
            with self.show("evaluate teacher") as advance:
                describe_teacher(teacher, self.dataset, out=folder.path, progress=advance)
        score = folder.evaluation().scores.mean_iou
        model = self._model_of(teacher)
        return Reference(
            name=teacher.name,
            mean_iou=score,
            parameters=teacher.parameters,
            size_bytes=None if model is None else (model / WEIGHTS_FILE).stat().st_size,
            source=None if model is None else str(model),
        )

    def distil(self, entry: Entry, base: Entry | None) -> Entry:
        """Train a candidate with the teacher, a pruned one from its trained base, and evaluate it."""
        recipe = self.recipe_of(entry.candidate, base)
        run = self.run_folder(entry.candidate, recipe)
        if not RunFolder(run).has_evaluation:
            with self.show(f"distil {entry.name}") as advance:
                train(recipe, out=run, role="student", teacher=self._open_teacher, resume=True, progress=advance)
            with self.show(f"evaluate {entry.name}") as advance:
                evaluate_run(run, reference=self.teacher_folder, progress=advance)
        score = RunFolder(run).evaluation().scores.mean_iou
        return replace(entry, run=str(run), mean_iou=score)

    def build(self, entry: Entry, *, max_drop: float) -> Entry:
        """Export and quantise a distilled candidate, and score each file itself on the validation split."""
        if entry.run is None:
            raise ModelError(f"{entry.name} has not been distilled")
        run = RunFolder(entry.run)
        name = _hash({"max_drop": round(max_drop, 3), "runtimes": self.settings.runtimes})
        folder = run.path / "files" / name
        store = folder / "scored.json"
        kept = _scored_before(store)
        if kept is None:
            with self.show(f"quantise {entry.name}") as advance:
                files, refused = build_files(
                    load_model(run.model),
                    self._with_teachers(run.recipe()),
                    folder,
                    self.settings.runtimes,
                    max_drop=max_drop,
                    progress=advance,
                )
            scored = []
            for file in files:
                try:
                    check_isolated(file.path, runtime=file.runtime, threads=self.settings.threads)
                    scored.append(self._scored(file, entry.name))
                except ModelError as error:
                    refused.append(str(error))
            if not scored:
                raise ModelError("; ".join(refused))
            write_json(store, {"files": [asdict(file) for file in scored], "refused": refused}, overwrite=False)
            kept = tuple(scored), tuple(refused)
        return replace(entry, files=kept[0], refused=kept[1])

    def weigh(self, entries: Sequence[Entry], reference: Reference) -> tuple[list[Entry], Reference]:
        """Measure all files of all entries anew, interleaved with the teacher in PyTorch fp32."""
        files = [
            Exported(file.runtime, file.precision, Path(file.path or ""))
            for entry in entries
            for file in entry.files
        ]  # fmt: skip
        with self.show("measure files") as advance:
            measured, weighed = measure_files(files, self.settings, reference=reference, progress=advance)
        found = iter(measured)
        results = []
        for entry in entries:
            kept, failed = _sorted_out(
                one if isinstance(one, str) else replace(one, mean_iou=file.mean_iou, accuracy=file.accuracy)
                for file, one in zip(entry.files, found, strict=False)
            )
            results.append(replace(entry, files=tuple(kept), refused=(*entry.refused, *failed)))
        return results, weighed or reference

    def profile(self, entry: Entry) -> None:
        """Time the distilled model in PyTorch, in turns with the teacher, for its card and the report."""
        with self.show("measure speed") as advance:
            profile_runs(
                [Path(entry.run or "")], teacher=self._open_teacher, described=self.teacher_folder, progress=advance
            )

    def recipe_of(self, candidate: Candidate, base: Entry | None = None) -> Recipe:
        """Return the recipe that distils a candidate.

        Args:
            candidate: The network.
            base: What it is pruned from, already distilled.

        Raises:
            ModelError: The trained base can't be pruned.
        """
        student = self.recipe.student
        assert student is not None  # noqa: S101  # a search begins with a student
        if candidate.pruned_from is not None:
            assert base is not None  # noqa: S101
            choice = ModelChoice(id=str(self._pruned(candidate, base)))  # which brings all that a choice may say
        else:
            choice = self._choice(candidate, student.model)
        distillation = self.recipe.distillation
        keeps = candidate.keeps_weights and candidate.pruned_from is None
        return self.recipe.model_copy(
            update={
                "student": student.model_copy(update={"model": choice}),
                "distillation": distillation.model_copy(
                    update={"inherit_encoder": distillation.inherit_encoder and keeps}
                ),
            }
        )

    def run_folder(self, candidate: Candidate, recipe: Recipe) -> Path:
        """Return where a candidate is distilled: named after it, its recipe and its teacher."""
        key = _hash({"recipe": _content(recipe), "teacher": self.identity})
        return self.work / "candidates" / f"{candidate.name}-{key}"

    def _choice(self, candidate: Candidate, student: ModelChoice) -> ModelChoice:
        if candidate.own:
            return student
        weights = student.encoder_weights if candidate.keeps_weights else None
        options = dict(candidate.options)
        return student.model_copy(update={"id": candidate.id, "options": options, "encoder_weights": weights})

    def _untrained(self, candidate: Candidate) -> SegmentationModel:
        """Build a candidate with random weights."""
        dataset, student = self.dataset, self.recipe.student
        if Path(candidate.id).is_dir():
            return load_model(candidate.id, classes=dataset.classes, bands=dataset.bands)
        return build_model(
            candidate.id,
            dataset.classes,
            bands=dataset.bands,
            options={name: value for name, value in candidate.options.items() if name not in _FETCHING},
            normalization=Normalization.named("half", dataset.bands),
            sigmoid=student is not None and student.model.sigmoid,
        )

    def _pruned(self, candidate: Candidate, base: Entry) -> Path:
        """Return the folder of a candidate's trained base, pruned."""
        run = Path(base.run or "")
        folder = self.work / "pruned" / f"{candidate.name}-{_hash({'run': run.name, 'macs': candidate.macs})}"
        if not folder.exists():
            with self.show(f"prune {base.name}"):
                images = torch.from_numpy(example_pixels(self.dataset))
                whole = load_model(run)
                prune(whole, macs=candidate.macs, size=self.settings.size, images=images).save(folder)
        return folder

    def _model_of(self, teacher: Teacher) -> Path | None:
        """Return the model folder of a teacher, written where it has none; None for what is no model of ours."""
        source = Path(teacher.name)
        for folder in (source / "model", source):
            if (folder / WEIGHTS_FILE).exists():
                return folder
        if not isinstance(teacher.module, SegmentationModel):
            return None
        folder = self.teacher_folder / "model"
        if not folder.exists():
            teacher.module.save(folder)
        return folder

    def _with_teachers(self, recipe: Recipe) -> Recipe:
        """Name the recipe's teachers in it, also where its own was trained."""
        teaching = {"teachers": self.teaching.teachers}
        return recipe.model_copy(update={"distillation": recipe.distillation.model_copy(update=teaching)})

    def _measured_as(self, candidate: Candidate) -> str:
        """Return what a measurement depends on, in short."""
        student = self.recipe.student
        return _hash(
            {
                "network": candidate.key,
                "classes": len(self.dataset.classes),
                "bands": self.dataset.bands,
                "sigmoid": student is not None and student.model.sigmoid,
                "size": self.settings.size,
                "runtimes": self.settings.runtimes,
                "machine": {key: describe_machine(threads=self.settings.threads or 0)[key] for key in ("cpu", "cores")},
                "threads": self.settings.threads or default_threads(),
                "versions": package_versions("segshrink", *self.settings.runtimes),
            }
        )

    def _open_teacher(self) -> Teacher:
        return open_teachers(self.teaching, self.dataset.classes, bands=self.dataset.bands)

    def _scored(self, file: Exported, name: str) -> MeasuredFile:
        """Score a file itself, through its runtime, on the validation split."""
        dataset = self.dataset
        with self.show(f"score {name} {file.precision}") as advance:
            result = evaluate(
                file.path,
                dataset,
                runtime=file.runtime,
                precision="auto",
                threads=self.settings.threads,
                progress=advance,
            )
        scores = result.scores
        # What it costs is measured beside the others, at the end.
        return MeasuredFile(
            file.runtime,
            file.precision,
            file.size_bytes,
            0.0,
            0.0,
            0.0,
            str(file.path),
            scores.mean_iou,
            scores.accuracy,
        )


class _ScoredFiles(Record):
    files: tuple[MeasuredFile, ...]
    refused: tuple[str, ...] = ()


def _scored_before(store: Path) -> tuple[tuple[MeasuredFile, ...], tuple[str, ...]] | None:
    """Return the scored files and refusals that were kept; None where there are none or they are damaged."""
    try:
        kept = _ScoredFiles.read(store)
    except (FileError, DataError):
        return None
    return kept.files, kept.refused


def _sorted_out(measured: Iterable[MeasuredFile | str]) -> tuple[list[MeasuredFile], list[str]]:
    """Return the files that could be measured, and why the others couldn't."""
    everything = list(measured)
    return (
        [one for one in everything if not isinstance(one, str)],
        [one for one in everything if isinstance(one, str)],
    )


def _content(recipe: Recipe) -> dict[str, Any]:
    """Return what a training depends on: a recipe without its name."""
    content = recipe.model_dump(mode="json")
    return {key: value for key, value in content.items() if key != "name"}


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:10]
