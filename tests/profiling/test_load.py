"""What others computed is what the cores were busy with, less our own processes."""

from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pytest

from segshrink.profiling.load import Load, LoadWatch

OURS, WORKER = os.getpid(), 4_000_000


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[int, float]]:
    """Two cores of a machine that has three, and the processor time of processes."""
    state: dict[str, dict[int, float]] = {"cores": {0: 50.0, 1: 50.0, 2: 50.0}, "processes": {OURS: 5.0, WORKER: 3.0}}

    def process(pid: int) -> SimpleNamespace:
        if pid not in state["processes"]:
            raise psutil.NoSuchProcess(pid)
        return SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=state["processes"][pid], system=0.0))

    def times(percpu: bool) -> list[SimpleNamespace]:
        assert percpu
        return [SimpleNamespace(user=value, system=1.0, idle=9.0) for value in state["cores"].values()]

    clock = iter((100.0, 110.0))
    monkeypatch.setattr(psutil, "cpu_times", times)
    monkeypatch.setattr(psutil, "Process", process)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    monkeypatch.setattr("segshrink.profiling.load.time.perf_counter", lambda: next(clock))
    return state


def test_own_work_is_not_others(machine: dict[str, dict[int, float]]) -> None:
    watch = LoadWatch([WORKER])
    machine["cores"] = {0: 59.0, 1: 99.0, 2: 53.0}  # 12 seconds on our cores; the third's is nobody's business
    machine["processes"] = {OURS: 6.0, WORKER: 10.0}
    load = watch.stop()
    assert load == Load(10.0, pytest.approx(4.0), 2)
    assert load.share == pytest.approx(0.2)
    assert load.busy
    assert load.sentence.startswith("other programs took 20% of the 2 cores")


def test_what_a_dead_process_had_computed_is_no_load(machine: dict[str, dict[int, float]]) -> None:
    watch = LoadWatch([WORKER])
    machine["cores"] = {0: 50.5, 1: 50.0, 2: 50.0}
    del machine["processes"][WORKER]
    load = watch.stop()
    assert load.share == pytest.approx(0.025)
    assert load.sentence == ""


@pytest.mark.parametrize(("others", "busy"), [(1.98, False), (2.0, True)])
def test_a_tenth_of_the_cores_is_busy(others: float, busy: bool) -> None:
    load = Load(10.0, others, 2)
    assert load.busy is load.to_dict()["busy"] is busy
    assert bool(load.sentence) is busy


def test_loads_add_up() -> None:
    total = Load() + Load(10.0, 4.0, 2) + Load(30.0, 0.0, 2)
    assert total.share == pytest.approx(0.05)
    unknown = total + Load(1.0, None, 2)
    assert unknown.share is None
    assert "unknown" in unknown.sentence
