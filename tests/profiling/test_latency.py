"""Turns, statistics, and what a worker's process tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segshrink.errors import ConfigError, ModelError
from segshrink.profiling import Job, Load, measure
from segshrink.profiling.latency import interleave, latency, turns
from segshrink.profiling.worker import Worker


class FakeWorker:
    """Takes ``seconds`` a run, and dies in the turn ``dies``; the warm-up counts as no turn."""

    def __init__(self, log: list[str], name: str, *, seconds: float = 0.5, dies: int | None = None) -> None:
        self.log, self.name, self.seconds, self.dies = log, name, seconds, dies
        self.asked: list[tuple[int, int]] = []

    def time(self, runs: int, *, idle: int = 0) -> list[float]:
        self.log.append(self.name)
        self.asked.append((runs, idle))
        if self.dies is not None and len(self.asked) > self.dies:
            raise ModelError(f"{self.name} died")
        return [self.seconds] * runs


def test_every_second_round_goes_backwards() -> None:
    assert list(turns(3, 3)) == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


def test_workers_take_turns_after_their_warm_up() -> None:
    log: list[str] = []
    workers = [FakeWorker(log, "a", seconds=1.5), FakeWorker(log, "b", seconds=3.0)]
    started: list[int] = []
    found = interleave(workers, runs=7, rounds=3, on_turn=started.append)
    assert started == [0, 1, 1, 0, 0, 1]
    # Warm after two runs of 1.5 s, or one of 3 s; then rounds of 2, 2 and 3 runs.
    assert "".join(log) == "aaa" + "bb" + "b" + "a" + "a" + "b"
    assert workers[0].asked == [(1, 0), (1, 0), (2, 0), (2, 0), (3, 0)]
    assert found == [[[1.5] * 2, [1.5] * 2, [1.5] * 3], [[3.0] * 2, [3.0] * 2, [3.0] * 3]]


def test_quick_models_settle_uncounted_and_slow_ones_run_less_often() -> None:
    log: list[str] = []
    quick, slow = FakeWorker(log, "q", seconds=0.001), FakeWorker(log, "s", seconds=9.0)
    found = interleave([quick, slow], runs=20, rounds=2)
    assert quick.asked[-1] == (10, 150), "0.15 s"
    assert slow.asked[-1] == (3, 0), "a minute for two rounds of 9 s each"
    assert [len(one) for one in found[1]] == [3, 3]


def test_slow_models_get_no_turn_beyond_their_time() -> None:
    log: list[str] = []
    quick, slow, endless = (
        FakeWorker(log, name, seconds=seconds) for name, seconds in (("q", 1.5), ("s", 8.5), ("e", 99))
    )
    found = interleave([quick, slow, endless], runs=20, rounds=5, seconds=20.0)
    # One run to be warm, and runs until 20 s are over; whatever is measured runs once.
    assert [sum(map(len, one)) for one in found] == [10, 2, 1]


def test_models_of_this_process_take_turns_with_others(program: Callable[[str], None]) -> None:
    program(
        "import json, sys\n"
        "print(json.dumps({'peak_memory_mb': 600.0, 'baseline_memory_mb': 1.0}), flush=True)\n"
        "for line in sys.stdin: print(json.dumps({'seconds': [3.0] * json.loads(line)['runs']}), flush=True)\n"
    )
    seen: list[tuple[int, ...]] = []
    backend = SimpleNamespace(bands=4, classify=lambda images: seen.append(images.shape))
    jobs = [
        Job(Path("a.onnx"), "onnxruntime", size=8, threads=1),
        Job(Path("b"), "torch", size=8, threads=1, backend=backend),  # type: ignore[arg-type]
    ]
    other, own = measure(jobs, runs=2, rounds=2)
    assert other.latency_ms is not None
    assert other.latency_ms["median"] == 3000
    assert own.latency_ms is not None
    assert own.latency_ms["runs"] == 2
    assert own.peak_memory_mb is None
    assert set(seen) == {(1, 8, 8, 4)}


@pytest.mark.parametrize(
    ("shares", "repeat", "kept"), [((0.6, 0.2), True, 1), ((0.2, 0.6), True, 0), ((0.6,), False, 0), ((0.09,), True, 0)]
)
def test_what_was_measured_on_a_busy_machine_is_measured_again(
    shares: tuple[float, ...], repeat: bool, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = iter([Load(10.0, 20 * share, 2) for share in shares])
    monkeypatch.setattr("segshrink.profiling.latency.LoadWatch", lambda _: SimpleNamespace(stop=lambda: next(loads)))
    backend = SimpleNamespace(bands=3, classify=lambda images: None)
    (found,) = measure([Job(Path("b"), "torch", size=8, backend=backend)], runs=1, rounds=1, repeat=repeat)  # type: ignore[arg-type]
    assert found.load.share == pytest.approx(shares[kept])
    assert next(loads, None) is None, "no more often than needed"


def test_one_that_cannot_be_opened_keeps_its_error_and_the_others_their_turns() -> None:
    started: list[int] = []
    found = interleave(["no such file", FakeWorker([], "b", seconds=3)], runs=2, rounds=2, on_turn=started.append)
    assert found == ["no such file", [[3], [3]]]
    assert started == [0, 1, 1, 0]


def test_one_that_dies_leaves_the_others_their_turns() -> None:
    log: list[str] = []
    workers = [FakeWorker(log, "a", seconds=3), FakeWorker(log, "b", seconds=3, dies=2)]
    found = interleave(workers, runs=4, rounds=4)
    assert found[0] == [[3]] * 4
    assert found[1] == "b died"
    assert log.count("b") == 3, "it is not asked again"


def test_statistics_are_over_all_runs() -> None:
    rounds = [[0.010, 0.012], [0.020, 0.022, 0.024]]
    found = latency(rounds)
    assert found["median"] == pytest.approx(20)
    assert found["p95"] == pytest.approx(float(np.quantile([10, 12, 20, 22, 24], 0.95)))
    assert (found["low"], found["high"], found["runs"]) == (11, 22, 5)


def test_jobs_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="runtime 'openvin' is unknown; did you mean 'openvino'"):
        Job(Path("x"), "openvin")
    with pytest.raises(ConfigError, match="precision 'fp16'"):
        Job(Path("x"), "torch", precision="fp16")
    with pytest.raises(ConfigError, match="batch 0"):
        Job(Path("x"), "torch", batch=0)
    with pytest.raises(ConfigError, match="3 runs in 5 rounds"):
        measure([], runs=3)


def test_files_are_measured_without_torch(onnx_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no graph")
    small, failed, large = (
        Job(path, "onnxruntime", size=size, batch=2, threads=1)
        for path, size in ((onnx_model, 32), (damaged, 32), (onnx_model, 768))
    )
    noted: list[tuple[int, int, str]] = []
    found = measure([small, failed, large], runs=4, rounds=2, progress=lambda *step: noted.append(step))
    assert [one.job for one in found] == [small, failed, large]

    assert found[1].latency_ms is None
    assert found[1].error is not None
    assert f"{damaged} on ONNX Runtime (2 images of 32 × 32, 1 thread)" in found[1].error
    assert "can't be loaded" in found[1].error

    assert found[0].error is None
    assert found[2].error is None
    assert found[0].latency_ms is not None
    assert found[2].latency_ms is not None
    assert found[0].latency_ms["runs"] == 4
    assert 0 < found[0].latency_ms["low"] <= found[0].latency_ms["median"] <= found[0].latency_ms["p95"]
    assert found[2].latency_ms["median"] > 5 * found[0].latency_ms["median"]
    median = found[2].latency_ms["median"] / 1000
    assert found[2].throughput == pytest.approx(2 * 768**2 / 1e6 / median)
    assert found[2].images_per_second == pytest.approx(2 / median)

    # Two images' logits alone take 4 bytes for each of 3 classes.
    assert found[2].peak_memory_mb is not None
    assert found[0].peak_memory_mb is not None
    assert found[2].peak_memory_mb > found[0].peak_memory_mb + 2 * 768**2 * 3 * 4 / 1e6
    assert 20 < (found[0].baseline_memory_mb or 0) < found[0].peak_memory_mb
    assert noted[-2][:2] == (8, 9), "the last of 9 steps has begun: 3 models opened, 2 turns each"
    assert noted[-1][:2] == (9, 9)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let workers run another program."""

    def replace(text: str) -> None:
        path = tmp_path / "program.py"
        path.write_text(text)
        monkeypatch.setattr("segshrink.profiling.worker.PROGRAM", path)

    return replace


def test_a_killed_process_is_told_from_one_that_failed(program: Callable[[str], None]) -> None:
    job = Job(Path("some.onnx"), "onnxruntime", size=8, threads=1)
    program("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ModelError, match=r"some\.onnx on ONNX Runtime .* ended by SIGKILL \(is there enough memory"):
        Worker(job)
    program("raise RuntimeError('no luck')")
    with pytest.raises(ModelError, match="RuntimeError: no luck"):
        Worker(job)


def test_threads_are_set_before_anything_is_imported(program: Callable[[str], None]) -> None:
    program(
        "import json, os; names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS');"
        "print(json.dumps({n: os.environ[n] for n in names} | {'cuda': os.environ['CUDA_VISIBLE_DEVICES']}))"
    )
    job = Job(Path("some.onnx"), "onnxruntime", threads=3)
    with Worker(job) as worker:
        assert worker.memory == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "cuda": ""}


def test_cohorts_hold_what_fits_in_memory(program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    program(
        "import json, sys\n"
        "print(json.dumps({'peak_memory_mb': 600.0, 'baseline_memory_mb': 1.0}), flush=True)\n"
        "for line in sys.stdin: print(json.dumps({'seconds': [3.0] * json.loads(line)['runs']}), flush=True)\n"
    )
    monkeypatch.setattr(
        "segshrink.profiling.latency.describe_machine", lambda: {"memory_gb": 2.5}
    )  # of which 1000 MB may be used: two workers pass it
    notes: list[str] = []
    jobs = [Job(Path(name), "onnxruntime", threads=1) for name in "abc"]
    found = measure(jobs, runs=2, rounds=2, progress=lambda done, total, note: notes.append(note[:6]))
    assert notes == ["open a", "open b", "a on O", "b on O", "b on O", "a on O", "open c", "c on O", "c on O", ""]
    assert [one.latency_ms["median"] if one.latency_ms else None for one in found] == [3000.0] * 3
