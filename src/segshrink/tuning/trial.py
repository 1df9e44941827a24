"""One trial: a training with the chosen values, stopped early where it can't become good, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning
import optuna
import torch
from lightning.pytorch.callbacks import Callback
from optuna.trial import FrozenTrial

from segshrink.config import Distillation
from segshrink.config.search_space import with_values
from segshrink.data import Dataset
from segshrink.errors import TrainingError
from segshrink.run_folder import RunFolder
from segshrink.teachers import Teacher
from segshrink.training import profile_runs, train
from segshrink.training.callbacks import MEAN_IOU
from segshrink.tuning.study import LOAD, RECIPE, REPORTS, Plan, RoleStudy

# Attribute of a trial that was stopped early: the percentage of its training.
STOPPED = "stopped"


class Reports(Callback):
    """Tells a trial each validation mIoU, and stops the training where the study's pruner says so."""

    def __init__(self, trial: optuna.Trial, reported: int, changed: Callable[[], None], *, prune: bool) -> None:
        self._trial, self._reported, self._changed, self._prune = trial, reported, changed, prune

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Train no further where the trial was stopped before its worker was lost."""
        trainer.should_stop = trainer.should_stop or STOPPED in self._trial.user_attrs

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look at the score in epochs that have one."""
        percent = 100 * trainer.global_step / int(trainer.estimated_stepping_batches)
        step = max((each for each in REPORTS if each <= percent), default=0)
        if not pl_module.scores_scenes or step <= self._reported:
            return
        self._reported = step
        self._trial.report(float(trainer.callback_metrics[MEAN_IOU]), step)
        self._changed()
        if self._prune and step < REPORTS[-1] and self._trial.should_prune():
            self._trial.set_user_attr(STOPPED, step)
            trainer.should_stop = True


@dataclass(frozen=True)
class Measurer:
    """Trains and measures the trials of a plan.

    Attributes:
        plan: The plan.
        dataset: The recipe's data set.
        open_teacher: Opens the teacher of a student.
        changed: Called when a trial has reported.
        show: Called with (what is done, steps done, steps in all, a short text).
    """

    plan: Plan
    dataset: Dataset
    open_teacher: Callable[[Distillation], Teacher]
    changed: Callable[[], None]
    show: Callable[..., None]

    def measure(
        self, study: RoleStudy, frozen: FrozenTrial, trial: optuna.Trial, values: dict[str, Any]
    ) -> Sequence[float]:
        """Train with the chosen values, and return a value for each objective.

        Raises:
            TrialPruned: The training was stopped early.
            SegshrinkError: As ``segshrink.training.train``.
        """
        recipe = with_values(self.plan.recipe, values)
        out, objectives = self.plan.folder(study.role, frozen), self.plan.settings.objectives
        callbacks = []
        if objectives == ("miou",):  # Optuna lets trials of one objective report
            # A worker that was killed may have reported what no checkpoint holds yet.
            reported = max(frozen.intermediate_values, default=0)
            callbacks.append(Reports(trial, reported, self.changed, prune=not trial.user_attrs[RECIPE]))
        try:
            result = train(
                recipe,
                out=out,
                role=study.role,
                teacher=partial(self.open_teacher, recipe.distillation) if study.role == "student" else None,
                dataset=self.dataset,
                resume=True,
                progress=partial(self.show, f"{study.role} {trial.number}"),
                callbacks=callbacks,
            )
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise TrainingError("its training needs more memory than there is") from error
        if STOPPED in trial.user_attrs:
            raise optuna.TrialPruned
        if objectives == ("miou",):
            return (result.mean_iou,)
        profile_runs([out], progress=partial(self.show, f"measure {study.role} {trial.number}"))
        profile = RunFolder(out).profile()
        if profile.load is not None:
            trial.set_user_attr(LOAD, profile.load.model_dump(mode="json"))
        measured = {
            "miou": result.mean_iou,
            "latency": profile.latency_ms.median if profile.latency_ms else None,
            "parameters": profile.parameters,
            "macs": profile.macs,
        }
        return [float(measured[name] or 0) for name in objectives]
