"""What follows a training: the run's model scored on whole scenes, and timed on this machine beside its teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from segshrink.data import Dataset, SceneStore
from segshrink.evaluation.evaluate import evaluate
from segshrink.evaluation_records import EvaluationRecord
from segshrink.machine import default_threads
from segshrink.models import SegmentationModel, load_model
from segshrink.prediction.runtimes.torch import TorchBackend
from segshrink.profiling.latency import Progress
from segshrink.profiling.profile import ForeignModel, Source, profile_models
from segshrink.run_folder import RunFolder
from segshrink.run_records import ProfileRecord, RunRecord
from segshrink.teachers import Teacher
from segshrink.teachers.teacher import TeacherModule

ScenesDone = Callable[[int, int], None]


def evaluate_run(
    run: Path, dataset: Dataset | None = None, *, reference: Path | None = None, progress: ScenesDone | None = None
) -> EvaluationRecord:
    """Evaluate ``run/model`` on the validation split of the run's own recipe.

    Writes ``evaluation.json`` and ``evaluation/``.

    Args:
        run: A finished run folder.
        dataset: Its data set, where it is open already.
        reference: Evaluated run folder of the teacher, to measure agreement with.
        progress: Called after every scene with (scenes done, scenes in all).
    """
    folder = RunFolder(run)
    data = dataset or folder.recipe().data
    return evaluate(folder.model, data, out=run, name=folder.run().role, reference=reference, progress=progress)


def profile_runs(
    runs: Sequence[Path],
    *,
    teacher: Callable[[], Teacher] | None = None,
    described: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Measure the models of runs, and their teacher's, in turns on this machine: ``profile.json`` in each folder.

    Nothing is measured where this was done before, all in one go and on a quiet machine. A teacher that is a black box
    has no profile: it runs on threads of its own.

    Args:
        runs: Finished run folders, the student's first.
        teacher: Opens their teacher.
        described: Folder that the teacher was evaluated into.
        progress: Called with (steps done, steps in all, what is being measured).
    """
    folders = [RunFolder(run) for run in runs]
    measured = [*([RunFolder(described)] if described else []), *folders]
    if all(folder.has_profile for folder in folders) and _timed_together(measured):
        return
    sources: dict[RunFolder, Source] = {folder: folder.model for folder in folders}
    if teacher is not None and described is not None:
        source = _teacher_source(teacher(), bands=load_model(runs[0]).description.bands)
        if source is not None:
            sources[measured[0]] = source
    names = {folder: folder.run().role for folder in sources}
    profiles = profile_models({names[folder]: source for folder, source in sources.items()}, progress=progress)
    for folder, name in names.items():
        folder.write_profile(ProfileRecord.model_validate(profiles[name]))


def _timed_together(folders: Sequence[RunFolder]) -> bool:
    """Whether the profiles of folders, where they have one, were measured in turns on a quiet machine."""
    profiles = [folder.profile() for folder in folders if folder.has_profile]
    sessions = {profile.session for profile in profiles}
    if len(sessions) != 1 or None in sessions or any(p.load is None or p.load.busy for p in profiles):
        return False
    # A teacher that was evaluated anew has lost the profile that it once had.
    return folders[0].has_profile or "teacher" not in profiles[0].turns


def describe_teacher(
    teacher: Teacher,
    dataset: Dataset,
    *,
    out: Path,
    temperature: float | None = None,
    answers: Teacher | None = None,
    progress: ScenesDone | None = None,
) -> EvaluationRecord:
    """Evaluate the teacher of a distillation into ``out``, which the report reads like a run folder.

    ``evaluation.json`` is written last.

    Args:
        teacher: The teacher, whatever it is.
        dataset: The student's data set, whose validation split judges both.
        out: Folder to write to.
        temperature: That it teaches with; None: it teaches nothing softened.
        answers: What answers in its place, such as a cache.
        progress: Called after every scene with (scenes done, scenes in all).
    """
    folder, run = RunFolder(out), RunFolder(teacher.name)
    folder.refuse_foreign()
    record = RunRecord(role="teacher", name=teacher.name, data=dataset.description.name, status="finished")
    if run.has_run:
        record = run.run()
    judged_on = SceneStore(dataset.val, dataset.classes).key
    folder.write_run(
        record.model_copy(update={"role": "teacher", "identity": teacher.identity, "judged_on": judged_on})
    )
    folder.remove_measurements()
    if run.metrics_file.exists():
        folder.metrics_file.write_bytes(run.metrics_file.read_bytes())
    model = answers or teacher
    return evaluate(model, dataset, out=out, name="teacher", temperature=temperature, progress=progress)


def _teacher_source(teacher: Teacher, *, bands: int) -> Source | None:
    """Return what can be measured of a teacher: models that can be saved, other networks of torch, no black box."""
    if isinstance(teacher.module, SegmentationModel) and not teacher.module.description.is_custom:
        return teacher.module
    if teacher.parameters is None:
        return None
    backend = TorchBackend(
        TeacherModule(teacher), precision="32", threads=default_threads(), classes=teacher.classes, bands=bands
    )
    return ForeignModel(backend, teacher.parameters)
