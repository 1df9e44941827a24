"""What a study leaves in its folder: ``study.json``, the page, and the best recipe of each role."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from segshrink.config import Recipe, dump_yaml
from segshrink.config.search_space import with_values
from segshrink.files import write_text
from segshrink.report import report
from segshrink.study_records import STUDY, StudyRecord, TrialRecord, TuningRecord
from segshrink.tuning.space import chosen_values
from segshrink.tuning.storage import shown
from segshrink.tuning.study import LOAD, REASON, RECIPE, Plan, RoleStudy

if TYPE_CHECKING:
    from segshrink.training.run import Role

# Seconds between two versions of the page while trials run.
_EVERY = 20.0
# Complete trials from which on an importance says something.
_FEW = 4
BEST = {"student": "best.yaml", "teacher": "best.yaml", "control": "best-control.yaml"}


class Results:
    """Writes the folder of a study anew while its trials run, and at the end."""

    def __init__(self, plan: Plan, studies: Sequence[RoleStudy]) -> None:
        self._plan, self._studies = plan, studies
        self._written = 0.0

    def refresh(self) -> None:
        """Write the page of running trials, unless that was done just now."""
        if time.monotonic() - self._written > _EVERY:
            self.write("running")

    def write(self, status: Literal["running", "stopped", "finished"]) -> tuple[TuningRecord, dict[Role, Path]]:
        """Write everything; return what ``study.json`` holds, and the files of the best recipes."""
        plan, settings = self._plan, self._plan.settings
        record = TuningRecord(
            name=plan.name,
            data=plan.recipe.data.name,
            status=status,
            storage=shown(plan.storage),
            trials=settings.trials,
            objectives=settings.objectives,
            sampler=settings.sampler,
            pruner=settings.pruner,
            updated=datetime.now().astimezone().isoformat(timespec="seconds"),
            leaking=plan.recipe.data.split.leaking,
            studies=tuple(map(_study_record, self._studies)),
        )
        record.write(plan.out / STUDY, overwrite=False)
        recipes: dict[Role, Path] = {}
        for study, found in zip(self._studies, record.studies, strict=True):
            if found.best is not None:
                recipes[study.role] = plan.out / BEST[study.role]
                best = best_recipe(plan.recipe, study, found.best)
                write_text(recipes[study.role], dump_yaml(best), overwrite=False)
        report([plan.out])
        self._written = time.monotonic()
        return record, recipes


def best_recipe(recipe: Recipe, study: RoleStudy, number: int) -> Recipe:
    """Return the recipe with the values of a trial."""
    return with_values(recipe, chosen_values(study.study.trials[number].params, study.space))


def _study_record(study: RoleStudy) -> StudyRecord:
    complete = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    front = sorted(trial.number for trial in study.study.best_trials) if complete else []
    first = study.study.directions[0] == StudyDirection.MAXIMIZE

    def rank(number: int) -> float:
        value = float(study.study.trials[number].values[0])
        return value if first else -value

    return StudyRecord(
        role=study.role,
        trials=tuple(map(_trial_record, study.trials())),
        importance=tuple(_importance(study.study, place) for place in range(len(study.study.directions)))
        if len(complete) >= _FEW
        else (),
        front=tuple(front),
        best=max(front, key=rank, default=None),
    )


def _importance(study: optuna.Study, place: int) -> dict[str, float]:
    """Return each parameter's share of what they change in an objective (PED-ANOVA, Watanabe et al. 2023)."""
    sign = -1 if study.directions[place] == StudyDirection.MAXIMIZE else 1  # the evaluator looks for low values
    return optuna.importance.get_param_importances(study, target=lambda trial: sign * trial.values[place])


def _trial_record(trial: FrozenTrial) -> TrialRecord:
    seconds = trial.duration.total_seconds() if trial.duration else None
    lost = trial.state == TrialState.FAIL and REASON not in trial.user_attrs
    return TrialRecord(
        number=trial.number,
        state=trial.state.name.lower(),
        values=tuple(trial.values or ()),
        params=trial.params,
        curve=tuple(sorted((float(step), value) for step, value in trial.intermediate_values.items())),
        seconds=seconds,
        recipe=bool(trial.user_attrs.get(RECIPE)),
        reason="its worker was lost" if lost else trial.user_attrs.get(REASON),
        load=trial.user_attrs.get(LOAD),
    )
