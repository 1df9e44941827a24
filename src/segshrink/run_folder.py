"""A run folder: the only reader and writer of what a training, an evaluation and a measurement leave there."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from segshrink.config import Recipe, dump_yaml, load_recipe
from segshrink.errors import FileError
from segshrink.evaluation_records import EvaluationRecord, ImageRecord
from segshrink.files import refuse_foreign, write_text
from segshrink.formatting import printable
from segshrink.model_file import MODEL_FOLDER_NAME
from segshrink.run_records import BankRecord, ProfileRecord, RunRecord

CONFIG, METRICS = "config.yaml", "metrics.csv"
RUN, EVALUATION, PROFILE, BANK = "run.json", "evaluation.json", "profile.json", "bank.json"
# The model as a page for browsers.
WEB_PAGE = "map.html"
# What a report leaves in the folder of its run.
REPORT, FIGURES = "report.html", "figures"
REPORT_FILES = (REPORT, "report.md", "report.json", FIGURES)
# The files by which a folder is known as a run's.
RECORDS = (RUN, EVALUATION, PROFILE, METRICS)
# Column of metrics.csv → (epochs, values) where it was measured.
Metrics = dict[str, tuple[list[float], list[float]]]


class RunFolder:
    """A folder of a run: paths, records and recipe; a student's holds its ``teacher`` and ``control`` beside its own.

    Args:
        path: The folder; it needn't be there.

    Example:
        >>> import tempfile
        >>> folder = RunFolder(tempfile.mkdtemp())
        >>> folder.write_run(RunRecord(role="student", name="mobile", steps=2500))
        >>> folder.run().steps
        2500
        >>> folder.has_evaluation
        False
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        """The recipe that it was trained from."""
        return self.path / CONFIG

    @property
    def metrics_file(self) -> Path:
        """A row of numbers for each epoch."""
        return self.path / METRICS

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.path / MODEL_FOLDER_NAME

    @property
    def checkpoints(self) -> Path:
        """Where the training keeps its last and its best state."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The state after the last whole epoch."""
        return self.checkpoints / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The state of the epoch before, until the training has finished."""
        return self.checkpoints / "previous.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The state of the epoch with the best validation score."""
        return self.checkpoints / "best.ckpt"

    @property
    def web_page(self) -> Path:
        """The model as a page for browsers."""
        return self.path / WEB_PAGE

    @property
    def pictures(self) -> Path:
        """What an evaluation keeps beside its record: pictures of some images, predictions of all."""
        return self.path / "evaluation"

    @property
    def predictions(self) -> Path:
        """The predicted classes of every image, NAME.png."""
        return self.pictures / "predictions"

    @property
    def teacher(self) -> RunFolder:
        """Where a student's teacher is described."""
        return RunFolder(self.path / "teacher")

    @property
    def own_teacher(self) -> RunFolder:
        """The run of a teacher that was trained for a student."""
        return RunFolder(self.path / "teacher-run")

    @property
    def control(self) -> RunFolder:
        """The run of a student's control."""
        return RunFolder(self.path / "control")

    def member(self, number: int) -> RunFolder:
        """Return the run of a bank's teacher."""
        return RunFolder(self.path / f"member-{number}")

    @property
    def members(self) -> list[Path]:
        """The run folders of a bank's teachers; empty where it holds no bank."""
        return [self.member(number).path for number in range(len(self.bank().members))] if self.has_bank else []

    @property
    def has_bank(self) -> bool:
        """Whether it holds a whole bank of teachers."""
        return (self.path / BANK).is_file()

    @property
    def has_run(self) -> bool:
        """Whether a training was begun here, or a teacher described."""
        return (self.path / RUN).is_file()

    @property
    def has_evaluation(self) -> bool:
        """Whether its model was evaluated."""
        return (self.path / EVALUATION).is_file()

    @property
    def has_profile(self) -> bool:
        """Whether its model was measured."""
        return (self.path / PROFILE).is_file()

    @property
    def is_run(self) -> bool:
        """Whether it holds any record."""
        return any((self.path / name).is_file() for name in RECORDS)

    def recipe(self) -> Recipe:
        """Read the recipe."""
        return load_recipe(self.config_file)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe."""
        write_text(self.config_file, dump_yaml(recipe), overwrite=False)

    def run(self) -> RunRecord:
        """Read ``run.json``.

        Raises:
            FileError: There is none, or it isn't JSON.
            DataError: It holds something else.
        """
        return RunRecord.read(self.path / RUN)

    def bank(self) -> BankRecord:
        """Read ``bank.json``; raises as ``run`` does."""
        return BankRecord.read(self.path / BANK)

    def evaluation(self) -> EvaluationRecord:
        """Read ``evaluation.json``; raises as ``run`` does."""
        if not self.has_evaluation:
            raise FileError(f"{self.path} holds no {EVALUATION}; run `segshrink evaluate` on it first")
        return EvaluationRecord.read(self.path / EVALUATION)

    def profile(self) -> ProfileRecord:
        """Read ``profile.json``; raises as ``run`` does."""
        return ProfileRecord.read(self.path / PROFILE)

    def write_run(self, record: RunRecord) -> None:
        """Write ``run.json``."""
        record.write(self.path / RUN, overwrite=False)

    def write_bank(self, record: BankRecord) -> None:
        """Write ``bank.json``."""
        record.write(self.path / BANK, overwrite=False)

    def write_evaluation(self, record: EvaluationRecord, *, overwrite: bool = False) -> None:
        """Write ``evaluation.json``; ``overwrite`` replaces even what this program did not write."""
        record.write(self.path / EVALUATION, overwrite=overwrite)

    def write_profile(self, record: ProfileRecord) -> None:
        """Write ``profile.json``."""
        record.write(self.path / PROFILE)

    def remove_measurements(self) -> None:
        """Remove metrics, evaluation and profile, which were another model's."""
        for name in (METRICS, PROFILE, EVALUATION):
            (self.path / name).unlink(missing_ok=True)

    def refuse_foreign(self) -> None:
        """Refuse the folder where a training would replace what this program didn't write.

        Raises:
            FileError: Its ``run.json`` isn't one of ours, or there is none and a file that a run writes stands there.
        """
        written = (CONFIG, *RECORDS, self.checkpoints.name, self.model.name, self.pictures.name)
        names = (RUN,) if self.has_run else (*written, *REPORT_FILES, WEB_PAGE)
        refuse_foreign(*(self.path / name for name in names))

    def refuse_begun(self) -> None:
        """Refuse the folder where a training was begun here, or a teacher described.

        Raises:
            FileError: It was.
        """
        if self.has_run:
            raise FileError(f"{self.path} already holds a run; add --resume to go on with it, or choose another folder")

    def refuse_other_evaluation(self, data: str, split: str) -> None:
        """Refuse the folder where an evaluation would replace that of another split, or what isn't one of ours.

        Raises:
            FileError: It would.
        """
        refuse_foreign(self.path / EVALUATION, self.pictures, overwrite=False)
        if not self.has_evaluation:
            return
        record = self.evaluation()
        if (record.data, record.split) != (printable(data), split):
            raise FileError(
                f"{self.path / EVALUATION} holds scores on split '{record.split}' of '{record.data}', not on '{split}' "
                f"of '{data}', so it is not replaced; choose another folder, or allow it with --overwrite "
                "(overwrite=True)"
            )

    def pictures_of(self, image: ImageRecord) -> tuple[Path, Path, Path] | None:
        """Return the pictures of an image, its truth and its prediction; None where not all lie inside the folder."""
        if image.pictures is None:
            return None
        names = (image.pictures.image, image.pictures.truth, image.pictures.prediction)
        files = [path for name in names if (path := self._inside(name)) is not None]
        return (files[0], files[1], files[2]) if len(files) == 3 else None

    def metrics(self) -> Metrics:
        """Return every column of ``metrics.csv`` with at least one measured value; rows without an epoch are left out.

        Raises:
            FileError: It can't be read.
        """
        if not self.metrics_file.is_file():
            return {}
        try:
            with self.metrics_file.open(encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise FileError(f"can't read {self.metrics_file} ({error}); delete it to leave the curves out") from error
        columns: dict[str, tuple[list[float], list[float]]] = {}
        for row in rows:
            numbers = {name: number for name, cell in row.items() if name and (number := _finite(cell)) is not None}
            if (epoch := numbers.pop("epoch", None)) is None:
                continue
            for name, value in numbers.items():
                epochs, values = columns.setdefault(name, ([], []))
                epochs.append(epoch)
                values.append(value)
        return columns

    def _inside(self, name: str) -> Path | None:
        """Return a file if it exists and lies inside the folder: other paths are not followed."""
        path = self.path / name
        try:
            inside = path.resolve().is_relative_to(self.path.resolve()) and path.is_file()
        except (OSError, ValueError):
            return None
        return path if inside else None


def _finite(cell: object) -> float | None:
    try:
        value = float(cell) if isinstance(cell, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
