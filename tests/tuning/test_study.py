"""Workers of one study: what each does, and what becomes of a trial whose worker is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from optuna import TrialPruned
from optuna.trial import TrialState

from segshrink.config import OpenValue
from segshrink.errors import ConfigError, FileError, TrainingError, UsageError
from segshrink.signals import Terminated
from segshrink.tuning.study import SAMPLERS, RoleStudy, Settings, join, work

from .conftest import RATE, make_plan

ROOT = Path(__file__).resolve().parents[2]
# A worker that joins, takes 0.2 s for a trial, writes down what it finished, and hangs in its second trial of all.
WORKER = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
import segshrink.tuning.storage as storage
storage.HEARTBEAT, storage.GRACE = 1, 3
from segshrink.tuning.study import join, work
from tests.tuning.conftest import make_plan
out, url, name, hang = sys.argv[1:]
plan = make_plan(Path(out), url, name=name, trials=3)

def measure(study, frozen, trial, values):
    if hang == "hang" and trial.number == 1:
        (Path(out) / "hangs").touch()
        time.sleep(60)
    time.sleep(0.2)
    with (Path(out) / "finished").open("a") as file:
        file.write(json.dumps([study.role, plan.folder(study.role, frozen).name]) + "\\n")
    return [0.5]

with join(plan, resume=True) as studies:
    assert work(studies, plan, measure, lambda: None)
"""


def start_worker(*arguments: str) -> subprocess.Popen[bytes]:
    code = WORKER.format(root=str(ROOT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)


def test_a_killed_workers_trial_is_another_workers_and_none_is_finished_twice(
    storage: str, name: str, tmp_path: Path
) -> None:
    first = start_worker(str(tmp_path), storage, name, "hang")
    deadline = time.monotonic() + 1500
    while not (tmp_path / "hangs").exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with join(make_plan(tmp_path, storage, name=name, trials=3), resume=True) as studies:
        assert [trial.state.name for trial in studies[0].study.trials].count("RUNNING") == 1
        second = start_worker(str(tmp_path), storage, name, "go on")
        assert second.wait(600) == 0
        for each in studies:
            states = [trial.state for trial in each.study.trials]
            assert TrialState.RUNNING not in states
            assert TrialState.WAITING not in states
            assert states.count(TrialState.COMPLETE) == 3
            assert [trial.state for trial in each.trials()] == [TrialState.COMPLETE] * 3
        lost = [trial for trial in studies[0].study.trials if trial.state == TrialState.FAIL]
        (again,) = (trial for trial in studies[0].trials() if trial.system_attrs.get("retry_history") == [1])
    assert [trial.number for trial in lost] == [1]
    assert again.params == lost[0].params
    finished = [tuple(json.loads(line)) for line in (tmp_path / "finished").read_text().splitlines()]
    assert [role for role, _ in sorted(finished)] == ["control"] * 3 + ["student"] * 3
    assert len(set(finished)) == 6
    assert ("student", "0001") in finished, "the folder of the lost trial"


def test_the_roles_take_turns_and_the_recipe_comes_first(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=3)
    order: list[tuple[str, float]] = []

    def measure(study: RoleStudy, *parts: Any) -> Sequence[float]:
        order.append((study.role, parts[-1][RATE]))
        return [parts[-1][RATE]]

    with join(plan, resume=False) as studies:
        assert work(studies, plan, measure, lambda: None)
        assert studies[0].study.best_trial.values == [max(rate for role, rate in order if role == "student")]
    assert [role for role, _ in order] == ["student", "control"] * 3
    assert [rate for _, rate in order[:2]] == [1e-3, 1e-3]
    assert len({rate for _, rate in order}) == 3
    with pytest.raises(FileError, match="--resume"), join(plan, resume=False):
        pass


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Terminated(15)], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_trial_waits_for_the_next_worker(stop: BaseException, tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=2)
    folders = []

    def measure(study: RoleStudy, frozen: Any, trial: Any, values: dict[str, Any]) -> Sequence[float]:
        folders.append(plan.folder(study.role, frozen).relative_to(tmp_path))
        if len(folders) == 1:
            trial.report(0.25, 5)
            raise stop
        return [0.5]

    with join(plan, resume=False) as studies:
        with pytest.raises(type(stop)):
            work(studies, plan, measure, lambda: None)
        assert [trial.state for trial in studies[0].trials()] == [TrialState.WAITING]
        assert work(studies, plan, measure, lambda: None)
        assert [len(each.trials()) for each in studies] == [2, 2]
        assert {trial.intermediate_values.get(5) for trial in studies[0].trials()} == {0.25, None}
    assert sorted(map(str, folders)) == ["control/0000", "control/0001", "student/0000", "student/0000", "student/0002"]


def test_trials_that_fail_count_and_a_recipe_that_fails_ends_the_study(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=3)

    def measure(study: RoleStudy, frozen: Any, trial: Any, values: dict[str, Any]) -> Sequence[float]:
        if frozen.number == 1:
            raise TrainingError("the loss became NaN")
        if frozen.number == 2:
            raise TrialPruned
        return [0.5]

    with join(plan, resume=False) as studies:
        assert work(studies, plan, measure, lambda: None)
        states = [trial.state.name for trial in studies[0].trials()]
        assert states == ["COMPLETE", "FAIL", "PRUNED"]
        assert studies[0].trials()[1].user_attrs["reason"] == "the loss became NaN"

    def refuse(*_: Any) -> Sequence[float]:
        raise ConfigError("no such term")

    with (
        join(make_plan(tmp_path, tmp_path / "other.log"), resume=False) as studies,
        pytest.raises(ConfigError, match="no such"),
    ):
        work(studies, plan, refuse, lambda: None)


def test_a_mistake_of_the_program_is_not_taken_for_a_bad_trial(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=3)

    def measure(*_: Any) -> Sequence[float]:
        raise ValueError("a mistake")

    with join(plan, resume=False) as studies, pytest.raises(ValueError, match="a mistake"):
        work(studies, plan, measure, lambda: None)


def test_a_trial_whose_worker_met_an_error_is_put_back(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=1)
    calls = []

    def measure(*_: Any) -> Sequence[float]:
        calls.append(1)
        if len(calls) == 2:
            raise FileError("there is no space left")
        if len(calls) == 3:
            raise TrainingError("the loss is not a number")
        return [0.5]

    with join(plan, resume=False) as studies, pytest.raises(FileError, match="no space"):
        work(studies, plan, measure, lambda: None)
    with join(plan, resume=True) as studies, pytest.raises(TrainingError, match="not a number"):  # the recipe's own
        work(studies, plan, measure, lambda: None)
    with join(plan, resume=True) as studies:
        assert work(studies, plan, measure, lambda: None)
        assert sorted(trial.state.name for each in studies for trial in each.trials()) == ["COMPLETE", "FAIL"]
    assert len(calls) == 3


def test_a_worker_that_slept_too_long_leaves_its_trial_to_others(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=1)
    calls = []

    def measure(study: RoleStudy, frozen: Any, trial: Any, values: dict[str, Any]) -> Sequence[float]:
        calls.append(study.role)
        if len(calls) == 1:  # others find the lease stale
            study.study._storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)
            study.study._storage.get_heartbeat_stale_trial_callback()(study.study, study.study.trials[frozen.number])
        return [0.5]

    with join(plan, resume=False) as studies:
        assert work(studies, plan, measure, lambda: None)
        assert [trial.state.name for trial in studies[0].study.trials] == ["FAIL", "COMPLETE"]
    assert calls.count("student") == 2


def test_a_trial_that_two_workers_put_back_at_the_same_moment_is_run_once(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=2)
    plan = replace(plan, spaces={"control": plan.spaces["control"]})
    folders = []

    def measure(study: RoleStudy, frozen: Any, *parts: Any) -> Sequence[float]:
        folders.append(plan.folder(study.role, frozen).name)
        if len(folders) == 1:
            raise FileError("there is no space left")
        return [0.5]

    with join(plan, resume=False) as studies, pytest.raises(FileError):
        work(studies, plan, measure, lambda: None)
    with join(plan, resume=True) as (study,):
        trials = study.trials
        lost = trials()
        study.trials = lambda: lost  # type: ignore[method-assign]  # what both saw
        study.put_back_lost()
        study.put_back_lost()
        study.trials = trials  # type: ignore[method-assign]
        assert [trial.state.name for trial in study.study.trials] == ["FAIL", "WAITING", "WAITING"]
        assert len(study.trials()) == 1
        assert work([study], plan, measure, lambda: None)
        assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "COMPLETE"]
    assert folders == ["0000", "0000", "0003"]


@pytest.mark.parametrize("hours", [-1, 23])
def test_a_trial_is_put_back_whatever_the_clock_says(tmp_path: Path, hours: int) -> None:
    """Its worker is gone for an hour, or the clock was set back since by a day."""
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=1)
    with join(plan, resume=False) as studies:
        for each in studies:
            with pytest.warns(UserWarning, match="Heartbeat"):  # outside of optimize there is none
                each.study._storage.record_heartbeat(each.study.ask()._trial_id)
        for lease in (tmp_path / "journal.log.leases").iterdir():
            os.utime(lease, (time.time() + 3600 * hours,) * 2)
    with join(plan, resume=True) as studies:
        assert work(studies, plan, lambda *_: [0.5], lambda: None)
        assert [trial.state.name for trial in studies[0].trials()] == ["COMPLETE"]


def test_a_second_worker_is_refused_at_sqlite(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, f"sqlite:///{tmp_path}/study.db", trials=1)
    with join(plan, resume=False) as studies:
        with pytest.warns(UserWarning, match="Heartbeat"):  # which the worker has stopped for now
            studies[0].study.ask()
        with pytest.raises(UsageError, match="SQLite"), join(plan, resume=True):
            pass


def test_no_trial_begins_after_the_time(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=3, timeout=0.0)
    with join(plan, resume=False) as studies:
        assert not work(studies, plan, lambda *_: pytest.fail("begun"), lambda: None)


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"grid"}))
def test_one_worker_draws_the_same_values_again(sampler: str, tmp_path: Path) -> None:
    drawn: list[list[float]] = []
    for place in ("first", "second"):
        plan = make_plan(tmp_path, tmp_path / f"{place}.log", trials=3, sampler=sampler)
        with join(plan, resume=False) as studies:
            assert work(studies[:1], plan, lambda study, frozen, trial, values: [values[RATE]], lambda: None)
            drawn.append([trial.params[RATE] for trial in studies[0].trials()])
    assert drawn[0] == drawn[1]
    assert all(first != second for first, second in pairwise(drawn[0]))
    assert all(1e-4 <= rate <= 1e-1 for rate in drawn[0])


def test_a_grid_is_gone_through_once(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, tmp_path / "journal.log", trials=9, sampler="grid")
    points = [(size, epochs) for size in (64, 128) for epochs in (49, 50, 51)]
    space = {"crops.size": OpenValue(choice=[64, 128]), "student.training.epochs": OpenValue(whole=(49, 51))}
    plan = replace(plan, spaces={"control": space})
    with join(plan, resume=False) as (study,):
        assert study.limit == len(points)
        assert work([study], plan, lambda *parts: [0.5], lambda: None)
        assert sorted(tuple(trial.params[place] for place in space) for trial in study.trials()) == points


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="tpe"):
        Settings(sampler="tp")
    with pytest.raises(UsageError, match="hyperband"):
        Settings(pruner="hyper")
    with pytest.raises(UsageError, match="latency"):
        Settings(objectives=("miou", "latencie"))
