"""The studies of a recipe, one for each role: how they are planned, joined and worked through."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import BaseStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from segshrink.config import Recipe, Space
from segshrink.errors import ConfigError, FileError, ModelError, TrainingError, UsageError, first_line, nearest
from segshrink.signals import Terminated
from segshrink.tuning.space import grid, start, suggest
from segshrink.tuning.storage import ONE_WORKER, RETRIES, open_storage, shown
from segshrink.user_code import is_function

if TYPE_CHECKING:
    from segshrink.training.run import Role

SAMPLERS: dict[str, Callable[[Space, int | None], BaseSampler]] = {
    "tpe": lambda space, seed: TPESampler(seed=seed),
    "gp": lambda space, seed: GPSampler(seed=seed),
    "cmaes": lambda space, seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "nsga2": lambda space, seed: NSGAIISampler(seed=seed),
    "random": lambda space, seed: RandomSampler(seed=seed),
    "grid": lambda space, seed: GridSampler(grid(space), seed=seed),
    "qmc": lambda space, seed: QMCSampler(seed=seed, warn_independent_sampling=False),
}
# Samplers whose workers share one sequence, which a seed makes.
_SHARED_SEED = ("grid", "qmc")
# A trial reports its mIoU at these percentages of its training, so that trainings of any length can be compared.
REPORTS = tuple(range(5, 101, 5))
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=20),
    "hyperband": lambda: HyperbandPruner(min_resource=10, max_resource=100, reduction_factor=3),
    "none": NopPruner,
}
# The direction of each objective.
OBJECTIVES: dict[str, Literal["minimize", "maximize"]] = {
    "miou": "maximize",
    "latency": "minimize",
    "parameters": "minimize",
    "macs": "minimize",
}
# Attributes of trials: of the one that is the recipe itself, of one that failed, of one that doesn't count; and what
# other programs computed while one was timed.
RECIPE, REASON, SURPLUS, LOAD = "recipe", "reason", "surplus", "load"
# Seconds between two looks at trials that other workers have under way.
_POLL = 2.0
# What makes a trial a failed one; anything else ends the worker.
FAILURES = (ConfigError, ModelError, TrainingError)


@dataclass(frozen=True)
class Settings:
    """How a study goes about it.

    Attributes:
        trials: How many each role gets.
        objectives: What is measured: "miou", "latency", "parameters", "macs"; the first one decides.
        sampler: What chooses values: one of ``SAMPLERS``.
        pruner: What stops trials early: one of ``PRUNERS``; there is none where several objectives are measured.
        timeout: Seconds after which no further trial begins.
    """

    trials: int = 40
    objectives: tuple[str, ...] = ("miou",)
    sampler: str = "tpe"
    pruner: str = "median"
    timeout: float | None = None

    def __post_init__(self) -> None:
        asked: list[tuple[str, str, Collection[str]]] = [("objective", name, OBJECTIVES) for name in self.objectives]
        for kind, name, known in (*asked, ("sampler", self.sampler, SAMPLERS), ("pruner", self.pruner, PRUNERS)):
            if name not in known:
                raise UsageError(f"unknown {kind} '{name}'{nearest(name, known)}")
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise UsageError(f"give each objective once, found '{','.join(self.objectives)}'")
        if self.trials < 1:
            raise UsageError(f"give at least one trial, found {self.trials}")
        if len(self.objectives) > 1 and self.sampler == "cmaes":
            raise UsageError("cmaes takes one objective; take another sampler, such as nsga2")


@dataclass(frozen=True)
class Plan:
    """Everything that a worker needs to join.

    Attributes:
        recipe: The recipe with its own values, paths absolute.
        spaces: What the trials of each role choose from.
        settings: How.
        storage: A journal file or a URL.
        out: The folder of the study, where this worker's trials lie.
    """

    recipe: Recipe
    spaces: dict[Role, Space]
    settings: Settings
    storage: str
    out: Path

    @property
    def name(self) -> str:
        """Name of the studies in their storage, without the role: equal for equal recipes, spaces and objectives."""
        places = [(role, place, value) for role, space in self.spaces.items() for place, value in space.items()]
        spaces = [(role, place, value.model_dump()) for role, place, value in places]
        content = [self.recipe.model_dump(mode="json"), spaces, self.settings.objectives]
        text = json.dumps(_without_folders(content), sort_keys=True)
        return f"{self.recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def functions(self) -> list[str]:
        """The functions of the user's own code that make the networks of its trials."""
        choices = [choice for space in self.spaces.values() for choice in space.values()]
        values = [value for choice in choices for value in choice.extremes]
        ids = [value.get("id") if isinstance(value, dict) else value for value in values]
        return [*self.recipe.functions, *(name for name in ids if isinstance(name, str) and is_function(name))]

    def folder(self, role: Role, trial: FrozenTrial) -> Path:
        """Return the run folder of a trial; one that is begun again goes on in the folder of the first."""
        first = trial.system_attrs.get("failed_trial", trial.number)
        return self.out / role / f"{first:04d}"


@dataclass
class RoleStudy:
    """The study of one role.

    Attributes:
        role: What its trials train.
        space: What they choose from.
        own: The recipe's own values.
        study: Optuna's.
        limit: How many trials it gets.
        seed: The recipe's.
    """

    role: Role
    space: Space
    own: dict[str, Any]
    study: optuna.Study
    limit: int
    seed: int
    _current: int | None = field(default=None, init=False)
    _error: Exception | None = field(default=None, init=False)

    def trials(self) -> list[FrozenTrial]:
        """Return the trials without those that lost their worker and were begun again, and those beyond the limit.

        Workers that put the same lost trial back at the same moment add it once each: the first one counts.
        """
        trials = self.study.get_trials(deepcopy=False)
        histories = [trial.system_attrs.get("retry_history", ()) for trial in trials]
        again = {number for history in histories for number in history}
        again |= {n for n, history in enumerate(histories) if history and history in histories[:n]}
        return [trial for trial in trials if trial.number not in again and SURPLUS not in trial.user_attrs]

    def begun(self) -> int:
        """Return how many trials need no further worker: they ended, or have one."""
        return sum(trial.state != TrialState.WAITING for trial in self.trials())

    def running(self) -> bool:
        """Whether a worker has a trial under way."""
        return any(trial.state == TrialState.RUNNING for trial in self.trials())

    def ended(self) -> bool:
        """Whether all trials have ended."""
        return self.begun() >= self.limit and not self.running()

    def run(
        self, sampler: str, measure: Callable[[FrozenTrial, optuna.Trial, dict[str, Any]], Sequence[float]]
    ) -> None:
        """Run one trial; what fails it is kept as its reason.

        Args:
            sampler: One of ``SAMPLERS``.
            measure: Trains with the chosen values, and returns a value for each objective.

        Raises:
            SegshrinkError: The recipe itself fails.
            KeyboardInterrupt: Ctrl-C, as ``Terminated`` for other signals; the trial is put back.
        """
        # A worker alone draws by seed and number; several must not draw the same, unless they share a sequence.
        drawn = self.seed + len(self.study.get_trials(deepcopy=False))
        seed = self.seed if sampler in _SHARED_SEED else None if self.running() else drawn % 2**32
        self.study.sampler = SAMPLERS[sampler](self.space, seed)
        self._current = self._error = None

        def objective(trial: optuna.Trial) -> Sequence[float]:
            self._current = trial.number
            if trial.number not in [each.number for each in self.trials()[: self.limit]]:
                trial.set_user_attr(SURPLUS, True)
                raise TrainingError("another worker began or put back this trial at the same moment")
            try:
                values = suggest(trial, self.space)
                trial.set_user_attr(RECIPE, trial.params == self.own)
                return measure(self.study.trials[trial.number], trial, values)
            except Terminated as stop:
                raise KeyboardInterrupt from stop  # which Optuna knows
            except Exception as error:  # what kind it is decides, here and where it comes out of Optuna
                self._error = error
                if isinstance(error, FAILURES):
                    trial.set_user_attr(REASON, first_line(error))
                raise

        try:
            self.study.optimize(objective, n_trials=1, catch=FAILURES, gc_after_trial=True)
        except KeyboardInterrupt as stop:
            self._put_back()
            raise (stop.__cause__ or stop) from None
        except Exception as error:  # Optuna raises many kinds, and all that a trial raises
            # A process that slept for long may find that its trial was given to another worker.
            if error is self._error or self._current is None or self._trial().state != TrialState.FAIL:
                raise
        if isinstance(self._error, FAILURES) and self._trial().user_attrs.get(RECIPE):
            raise self._error

    def put_back_lost(self) -> None:
        """Put trials back whose worker ended by an error that wasn't theirs, such as a full disk."""
        put_back = RetryHeartbeatStaleTrialCallback(RETRIES, inherit_intermediate_values=True)
        for trial in self.trials():
            if trial.state == TrialState.FAIL and REASON not in trial.user_attrs:
                put_back(self.study, trial)

    def _trial(self) -> FrozenTrial:
        return self.study.trials[self._current or 0]

    def _put_back(self) -> None:
        """Let another worker, or this one when it is started again, go on with the trial under way."""
        if self._current is not None:
            RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)(self.study, self._trial())


@contextmanager
def join(plan: Plan, *, resume: bool) -> Iterator[list[RoleStudy]]:
    """Create the studies of a plan in its storage, or join them there; the storage is open during the block.

    Args:
        plan: The plan.
        resume: Whether they may be there.

    Raises:
        FileError: They are there and ``resume`` is not given, or the storage can't be used.
        UsageError: Another worker has a trial under way in SQLite.
    """
    with open_storage(plan.storage) as storage:
        studies = [_join(plan, role, storage, resume=resume) for role in plan.spaces]
        if "sqlite" in plan.storage.partition("://")[0]:
            for each in studies:
                optuna.storages.fail_stale_trials(each.study)
            if any(each.running() for each in studies):
                raise UsageError(f"another worker has a trial under way in {shown(plan.storage)}; {ONE_WORKER}")
        yield studies


def _join(plan: Plan, role: Role, storage: BaseStorage, *, resume: bool) -> RoleStudy:
    settings, space = plan.settings, plan.spaces[role]
    limit = settings.trials
    if settings.sampler == "grid":
        limit = min(limit, math.prod(map(len, grid(space).values())))
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=f"{plan.name}-{role}",
            directions=[OBJECTIVES[name] for name in settings.objectives],
            pruner=PRUNERS[settings.pruner if len(settings.objectives) == 1 else "none"](),
            load_if_exists=resume,
        )
    except DuplicatedStudyError as error:
        raise FileError(
            f"{shown(plan.storage)} already holds this study; add --resume to go on with it or to join its workers, or "
            "choose another folder"
        ) from error
    own = start(space, plan.recipe)
    if settings.sampler != "grid":  # which comes to it by itself
        study.enqueue_trial(own, skip_if_exists=True)
    return RoleStudy(role, space, own, study, limit, plan.recipe.seed)


def work(
    studies: Sequence[RoleStudy],
    plan: Plan,
    measure: Callable[[RoleStudy, FrozenTrial, optuna.Trial, dict[str, Any]], Sequence[float]],
    changed: Callable[[], None],
) -> bool:
    """Run trials, each time of the role that has fewer, until all have ended or the time is over.

    Args:
        studies: As ``join`` gives them.
        plan: The plan.
        measure: Trains a trial of a role with the chosen values, and returns a value for each objective.
        changed: Called before and after each trial.

    Returns:
        Whether all trials have ended.
    """
    timeout = plan.settings.timeout
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    for each in studies:
        each.put_back_lost()
    while True:
        for each in studies:
            optuna.storages.fail_stale_trials(each.study)
        changed()
        if all(each.ended() for each in studies):
            return True
        open_studies = [each for each in studies if each.begun() < each.limit]
        if time.monotonic() > deadline:
            return False
        if open_studies:
            study = min(open_studies, key=RoleStudy.begun)
            study.run(plan.settings.sampler, partial(measure, study))
        else:
            time.sleep(_POLL)


def _without_folders(content: Any) -> Any:
    """Return a recipe's content without the folders of its paths, which differ between machines."""
    if isinstance(content, dict):
        return {key: _without_folders(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_folders(value) for value in content]
    return Path(content).name if isinstance(content, str) and Path(content).is_absolute() else content
