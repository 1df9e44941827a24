"""Build, train, export and score candidates, with results cached on disk.

What was done stands in a work folder under the content it depends on, so that an interrupted search goes on where it
was, and searches for several budgets share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from segshrink.compression.pruning.prune import prune
from segshrink.compression.search.candidate_files import export_trained, export_untrained, measure_files
from segshrink.compression.search.candidates import Candidate, CandidateFile, CandidateResult, Reference, as_network
from segshrink.compression.search.search import Settings, Show, silent
from segshrink.config import Distillation, ModelChoice, Recipe, TeacherSource, Teaching
from segshrink.config.recipe import is_folder
from segshrink.data import Dataset, open_dataset
from segshrink.data.calibration import example_pixels
from segshrink.errors import DataError, FileError, ModelError
from segshrink.evaluation import evaluate
from segshrink.files import read_json, scratch_folder, write_json
from segshrink.machine import default_threads, describe_machine, package_versions
from segshrink.model_description import Normalization
from segshrink.model_file import FOLDER, ModelFile
from segshrink.models import SegmentationModel, build_model, count_parameters, load_model
from segshrink.prediction.isolated import check_isolated
from segshrink.profiling.parameters_and_macs import count_macs
from segshrink.records import Record
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher, open_teachers
from segshrink.training import describe_teacher, evaluate_run, profile_runs, train
from segshrink.training.build_student import build_chosen

# Options of a network that fetch weights; an untrained candidate needs none.
_FETCHING = ("weights",)
# Keys that recipes of version 0.1 didn't have, and what they say where they are left out.
_LATER: dict[str, Any] = {
    **dict.fromkeys(("cutmix", "mixup"), 0.0),
    **{key: [] for key in ("colors", "values", "labels", "ignore_labels", "exclude", "overlaps")},
    **{key: [] for key in ("members", "trackers")},
    **dict.fromkeys(("mask_resize", "soft_weight", "consistency", "folds", "module", "origin", "start")),
    **dict.fromkeys(("mask_instances", "label_errors")),
    **dict.fromkeys(("out_of_fold", "trust", "sync_batchnorm"), False),
    "resize": None,
    "truth": "labels",
    "start_classes": {},
    "keep": "best",
    **dict.fromkeys(("accumulate", "devices", "nodes"), 1),
    "strategy": "ddp",
    "optimizer": {"name": "adamw", "options": {}},
    "schedule": {"name": "cosine", "options": {}},
}


class _ScoredFiles(Record):
    files: tuple[CandidateFile, ...]
    refused: tuple[str, ...] = ()


@dataclass
class SearchStages:
    """Does a search's work for one recipe; what was done before with the same content is not done again.

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
        """The recipe's teachers, or the teacher that it says how to train, which is trained first."""
        teaching = self.recipe.distillation
        if teaching.teachers:
            return teaching
        alone = self.recipe.model_copy(update={"student": None, "distillation": Distillation()})
        run = self.work / f"teacher-run-{_hash(_training_content(alone))}"
        with self.show("train teacher") as advance:
            train(alone, out=run, role="teacher", dataset=self.dataset, resume=True, progress=advance)
        return teaching.model_copy(update={"teachers": [TeacherSource(source=str(run))]})

    @cached_property
    def identity(self) -> str:
        """What the teacher is, exactly."""
        return self._open_teacher().identity

    @cached_property
    def teacher_folder(self) -> Path:
        """Where the teacher's measures stand, as the report reads them."""
        data = _content(self.recipe.data)
        return self.work / f"teacher-{_hash({'teacher': self.identity, 'data': data})}"

    def measure(self, candidate: Candidate) -> CandidateResult:
        """Build a candidate with random weights and measure its fp32 and int8 files.

        What was measured on a busy machine is not kept for another time.

        Raises:
            ModelError: The network can't be built, pruned, exported or quantized.
        """
        store = self.work / "measurements" / f"{candidate.name}-{self._measurement_key(candidate)}.json"
        with suppress(FileError):  # what is missing or damaged is measured again
            if (kept := CandidateResult.from_dict(read_json(store))).timed_well:
                return replace(kept, candidate=candidate)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self._untrained(candidate)
            if candidate.macs is not None:
                model = prune(model, macs=candidate.macs, size=self.settings.size)
        with scratch_folder() as scratch:
            files, refused = export_untrained(model, scratch, self.settings.runtimes)
            measured, failed = _divided(measure_files(files, self.settings, quick=True))
        refused += failed
        if not measured:
            raise ModelError("; ".join(refused))
        result = CandidateResult(
            candidate,
            parameters=count_parameters(model),
            macs=count_macs(model, size=self.settings.size),
            untrained=tuple(replace(file, path=None) for file in measured),
            refused=tuple(refused),
        )
        if not refused and result.timed_well:  # what failed may be mended, and the machine may be quiet next time
            write_json(store, result.to_dict())
        return result

    def prepare_teacher(self) -> Reference:
        """Train the recipe's teacher where none is named, and evaluate it."""
        folder = RunFolder(self.teacher_folder)
        teacher = self._open_teacher()
        if not folder.has_evaluation:
            with self.show("evaluate teacher") as advance:
                describe_teacher(teacher, self.dataset, out=folder.path, progress=advance)
        model = self._teacher_model(teacher)
        file = CandidateFile("torch", "fp32", size_bytes=0, mean_iou=folder.evaluation().scores.mean_iou)
        if model is not None:
            file = replace(file, size_bytes=model.size_bytes, path=str(model.path))
        return Reference(teacher.name, file, teacher.parameters)

    def distill(self, result: CandidateResult, base: CandidateResult | None) -> CandidateResult:
        """Train a candidate with the teacher (a pruned one from its trained ``base``), and evaluate it.

        Raises:
            ConfigError: The recipe's terms don't fit the network.
            ModelError: The network doesn't fit the data.
            TrainingError: The loss became NaN or infinite.
        """
        recipe = self.recipe_of(result.candidate, base)
        run = RunFolder(self.run_folder(result.candidate, recipe))
        if not run.has_evaluation:
            with self.show(f"distill {result.name}") as advance:
                train(
                    recipe,
                    out=run.path,
                    role="student",
                    teacher=self._open_teacher,
                    dataset=self.dataset,
                    resume=True,
                    progress=advance,
                )
            with self.show(f"evaluate {result.name}") as advance:
                evaluate_run(run.path, self.dataset, reference=self.teacher_folder, progress=advance)
        return replace(result, run=str(run.path), mean_iou=run.evaluation().scores.mean_iou)

    def build(self, result: CandidateResult, *, max_drop: float) -> CandidateResult:
        """Export and quantize a distilled candidate, and score each file itself on the validation split.

        Args:
            result: A distilled candidate.
            max_drop: Points of mIoU that quantization may cost.

        Raises:
            ModelError: The network can't be exported or quantized.
        """
        if result.run is None:
            raise ModelError(f"{result.name} has not been distilled")
        run, runtimes = RunFolder(result.run), self.settings.runtimes
        folder = run.path / "files" / _hash({"max_drop": round(max_drop, 3), "runtimes": runtimes})
        store = folder / "scored.json"
        with suppress(FileError, DataError):  # what is missing or damaged is made again
            scored = _ScoredFiles.read(store)
            # An older version wrote absolute paths.
            kept = tuple(replace(file, path=str(folder / (file.path or ""))) for file in scored.files)
            if all(Path(file.path or "").is_file() for file in kept):
                return replace(result, files=kept, refused=scored.refused)
        recipe = run.recipe()
        # A teacher that was trained for the search isn't named in it.
        teachers = recipe.distillation.model_copy(update={"teachers": self.teaching.teachers})
        recipe = recipe.model_copy(update={"distillation": teachers})
        with self.show(f"quantize {result.name}") as advance:
            model = load_model(run.model)
            files, refused = export_trained(
                model, recipe, self.dataset, folder, runtimes, max_drop=max_drop, progress=advance
            )
        scores = []
        for file in files:
            try:
                check_isolated(Path(file.path or ""), runtime=file.runtime, threads=self.settings.threads)
                scores.append(self._score(file, result.name))
            except ModelError as error:
                refused.append(str(error))
        if not scores:
            raise ModelError("; ".join(refused))
        relative = [replace(file, path=str(Path(file.path or "").relative_to(folder))) for file in scores]
        write_json(store, {"files": [asdict(file) for file in relative], "refused": refused}, overwrite=False)
        return replace(result, files=tuple(scores), refused=tuple(refused))

    def measure_final(
        self, results: Sequence[CandidateResult], reference: Reference
    ) -> tuple[list[CandidateResult], Reference]:
        """Measure all files of all candidates anew, in turns with the teacher in PyTorch fp32."""
        files = [file for result in results for file in result.files]
        teacher = [] if reference.file.path is None else [reference.file]
        with self.show("measure files") as advance:
            measured = measure_files([*files, *teacher], self.settings, progress=advance)
        if teacher and isinstance(last := measured[-1], CandidateFile):
            reference = replace(reference, file=last)
        remaining = iter(measured)
        final = []
        for result in results:
            kept, failed = _divided([next(remaining) for _ in result.files])
            final.append(replace(result, files=tuple(kept), refused=(*result.refused, *failed)))
        return final, reference

    def profile(self, result: CandidateResult) -> None:
        """Time the distilled model in PyTorch, in turns with the teacher, for its card and the report."""
        with self.show("measure speed") as advance:
            profile_runs(
                [Path(result.run or "")], teacher=self._open_teacher, described=self.teacher_folder, progress=advance
            )

    def recipe_of(self, candidate: Candidate, base: CandidateResult | None = None) -> Recipe:
        """Return the recipe that distills a candidate.

        Args:
            candidate: The network.
            base: What it is pruned from, already distilled.

        Raises:
            ModelError: The trained base can't be pruned.
        """
        student, distillation = self.recipe.student, self.recipe.distillation
        assert student is not None  # noqa: S101  # a search begins with a student
        model = student.model
        inherits = distillation.inherit_encoder and candidate.keeps_weights
        if base is not None:
            # The folder brings all that a choice may say.
            model, inherits = ModelChoice(id=str(self._pruned(candidate, base))), False
        elif not candidate.from_recipe:
            model = as_network(model)
            weights = model.encoder_weights if candidate.keeps_weights else None
            options = dict(candidate.options)
            update = {"id": candidate.id, "options": options, "encoder_weights": weights}
            model = model.model_copy(update={**update, "start": None, "start_classes": {}})
        parts = {
            "student": student.model_copy(update={"model": model}),
            "distillation": distillation.model_copy(update={"inherit_encoder": inherits}),
        }
        return self.recipe.model_copy(update=parts)

    def run_folder(self, candidate: Candidate, recipe: Recipe) -> Path:
        """Return where a candidate is distilled: named after it, its recipe and its teacher."""
        key = _hash({"recipe": _training_content(recipe), "teacher": self.identity})
        return self.work / "candidates" / f"{candidate.name}-{key}"

    def _untrained(self, candidate: Candidate) -> SegmentationModel:
        """Build a candidate with random weights."""
        dataset = self.dataset
        student = self.recipe.student
        if student is not None and candidate.id == student.model.start:
            return build_chosen(student.model, dataset, lambda: Normalization.named("half", dataset.bands))
        if is_folder(candidate.id):
            model = load_model(candidate.id, classes=dataset.classes, bands=dataset.bands)
        else:
            model = build_model(
                candidate.id,
                dataset.classes,
                bands=dataset.bands,
                options={name: value for name, value in candidate.options.items() if name not in _FETCHING},
                normalization=Normalization.named("half", dataset.bands),
                sigmoid=self._sigmoid,
            )
        return model.with_resize(dataset.description.resize)

    def _pruned(self, candidate: Candidate, base: CandidateResult) -> Path:
        """Return the folder of a candidate's trained base, pruned."""
        run = RunFolder(base.run or "")
        folder = self.work / "pruned" / f"{candidate.name}-{_hash({'run': run.path.name, 'macs': candidate.macs})}"
        if not folder.exists():
            with self.show(f"prune {base.name}"):
                images = torch.from_numpy(example_pixels(self.dataset))
                whole = load_model(run.model)
                prune(whole, macs=candidate.macs, size=self.settings.size, images=images).save(folder)
        return folder

    def _teacher_model(self, teacher: Teacher) -> ModelFile | None:
        """Return the model folder of a teacher, written where it has none; None for what can't be saved."""
        with suppress(FileError, ModelError):
            file = ModelFile.find(teacher.name)
            if file.kind == FOLDER and file.size_bytes:
                return file
        if not isinstance(teacher.module, SegmentationModel) or teacher.module.description.is_custom:
            return None
        folder = self.teacher_folder / "model"
        if not folder.exists():
            teacher.module.save(folder)
        return ModelFile(folder)

    def _measurement_key(self, candidate: Candidate) -> str:
        """Return what a measurement depends on, in short."""
        threads = self.settings.threads
        machine = describe_machine(threads=threads or 0)
        return _hash(
            {
                "network": candidate.key,
                "classes": len(self.dataset.classes),
                "bands": self.dataset.bands,
                "sigmoid": self._sigmoid,
                **({} if (resize := self.recipe.data.resize) is None else {"resize": resize}),
                "size": self.settings.size,
                "runtimes": self.settings.runtimes,
                "machine": {key: machine[key] for key in ("cpu", "cores")},
                "threads": threads or default_threads(),
                "versions": package_versions("segshrink", *self.settings.runtimes),
            }
        )

    @property
    def _sigmoid(self) -> bool:
        return self.recipe.student is not None and self.recipe.student.model.sigmoid

    def _open_teacher(self) -> Teacher:
        return open_teachers(self.teaching, self.dataset.classes, bands=self.dataset.bands)

    def _score(self, file: CandidateFile, name: str) -> CandidateFile:
        """Score a file itself, through its runtime, on the validation split; what it costs is measured at the end."""
        with self.show(f"score {name} {file.precision}") as advance:
            scores = evaluate(
                Path(file.path or ""),
                self.dataset,
                runtime=file.runtime,
                precision="auto",
                threads=self.settings.threads,
                progress=advance,
            ).scores
        return replace(file, mean_iou=scores.mean_iou, accuracy=scores.accuracy)


def _divided(measured: Sequence[CandidateFile | str]) -> tuple[list[CandidateFile], list[str]]:
    """Return the files that could be measured, and why the others couldn't."""
    files = [file for file in measured if isinstance(file, CandidateFile)]
    return files, [reason for reason in measured if isinstance(reason, str)]


def _training_content(recipe: Recipe) -> dict[str, Any]:
    """Return what a training depends on: a recipe without its name."""
    return {key: value for key, value in _content(recipe).items() if key != "name"}


def _content(section: BaseModel) -> Any:
    """Return a recipe's section without later keys that say what they say where they are left out.

    So the folders of a search that an older version began have the same names.
    """

    def without_later(value: Any) -> Any:
        if isinstance(value, dict):
            pairs = ((key, without_later(inner)) for key, inner in value.items())
            return {key: inner for key, inner in pairs if key not in _LATER or inner != _LATER[key]}
        return [without_later(inner) for inner in value] if isinstance(value, list) else value

    return without_later(section.model_dump(mode="json"))


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:10]
