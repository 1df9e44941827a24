"""The schema of ``study.json``: what a hyper-parameter search tried and found."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from segshrink.records import Count, Flag, Many, Number, Record, Text
from segshrink.run_records import LoadRecord
from segshrink.version import __version__

STUDY = "study.json"


class TrialRecord(Record):
    """One trial.

    Attributes:
        number: Its number in its study.
        state: As Optuna has it.
        values: One for each objective; of a pruned trial the last validation mIoU, of others that didn't end none.
        params: What was tried, by place in the recipe.
        curve: (percent of the training, validation mIoU), as far as it came.
        seconds: From its beginning to its end.
        recipe: Whether it is the recipe with its own values.
        reason: Why it failed.
        load: What other programs computed while it was timed; None where unknown or not timed.
    """

    number: Count
    state: Literal["waiting", "running", "complete", "pruned", "fail"]
    values: Many[Number] = ()
    params: dict[str, Any] = Field(default={})
    curve: Many[tuple[Number, Number]] = ()
    seconds: Number | None = None
    recipe: Flag = False
    reason: Text | None = None
    load: LoadRecord | None = None


class StudyRecord(Record):
    """The trials of one role.

    Attributes:
        role: What was trained.
        trials: All of them, without those that lost their worker and were begun again under another number.
        importance: For each objective, each parameter's share of what the parameters change; empty where too few
            trials say so.
        front: Numbers of the trials that no other beats in every objective.
        best: The trial with the best first objective among these.
    """

    role: Literal["teacher", "student", "control"]
    trials: Many[TrialRecord] = ()
    importance: Many[dict[str, Number]] = ()
    front: Many[Count] = ()
    best: Count | None = None

    def trial(self, number: int | None) -> TrialRecord | None:
        """Return the trial of a number."""
        return next((trial for trial in self.trials if trial.number == number), None)

    @property
    def finished(self) -> tuple[TrialRecord, ...]:
        """The trials that came to an end, be it an early one."""
        return tuple(trial for trial in self.trials if trial.state in ("complete", "pruned", "fail"))


class TuningRecord(Record):
    """``study.json``.

    Attributes:
        segshrink: Version of the program that wrote it.
        name: Of the studies in their storage, without the role.
        data: Name of the data set.
        status: "running" while trials are under way.
        storage: Where the studies are kept; no password.
        trials: How many each role gets.
        objectives: What is measured, the first one decides.
        sampler: Chooses values.
        pruner: Stops trials early.
        updated: When this was written, ISO 8601 with time zone.
        leaking: Whether parts of one scene stand on both sides of the split.
        studies: One for each role.
    """

    remedy = "run `segshrink tune` with --resume to write it again"

    segshrink: Text = __version__
    name: Text
    data: Text
    status: Literal["running", "stopped", "finished"]
    storage: Text
    trials: Count
    objectives: Many[Text]
    sampler: Text
    pruner: Text
    updated: Text
    leaking: Flag = False
    studies: Many[StudyRecord]
