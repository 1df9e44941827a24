"""SIGTERM and SIGHUP end every verb in good order; so do readers that have gone, and memory that is used up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segshrink import signals
from segshrink.cli._errors import interrupted_sentence
from segshrink.evaluation import Confusion
from segshrink.prediction.scenes.write import SceneResults
from segshrink.profiling import latency
from segshrink.signals import Terminated, ending_on_signals
from segshrink.teachers import cache
from segshrink.training import callbacks, run

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "SEGSHRINK_ALLOCATOR": "default"}
PROGRAM = (sys.executable, "-m", "segshrink.cli")
STATUS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".segshrink-*") if path.name != ".segshrink-scratch" or any(path.iterdir())]


def children() -> list[bytes]:
    """Command lines of this process's children, as far as the system tells."""
    numbers = Path(f"/proc/self/task/{os.getpid()}/children")
    return [Path(f"/proc/{n}/cmdline").read_bytes() for n in numbers.read_text().split()] if numbers.exists() else []


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a function send this process a signal each time it is called."""

    def send(owner: Any, name: str, *numbers: int) -> None:
        former = getattr(owner, name)

        def sending(*arguments: Any, **options: Any) -> Any:
            result = former(*arguments, **options)
            for number in numbers:
                signal.raise_signal(number)
            return result

        monkeypatch.setattr(owner, name, sending)

    return send


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Every command gives the signals their former meaning, also where the tests run under nohup."""
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs of a script's background ignore it
    before = [signal.getsignal(number) for number in STATUS]
    yield
    assert [signal.getsignal(number) for number in STATUS] == before
    signal.signal(signal.SIGHUP, hangup)
    signal.signal(signal.SIGINT, interrupt)


PLACES = {
    "a step": (callbacks.StepProgress, "on_train_batch_end"),
    "an epoch's end": (callbacks.MetricsFile, "on_train_epoch_end"),
    "a validation": (Confusion, "update"),
    "saving": (run, "_save_kept"),
}


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)]
)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_training_that_is_told_to_end_can_be_gone_on_with(
    segshrink, recipe: Path, tmp_path: Path, at: Callable[..., None], place: tuple[Any, str], numbers: tuple[int, ...]
) -> None:
    out = tmp_path / "run"
    arguments = ("train", recipe, "-o", out)
    at(*place, *numbers)
    result = segshrink(*arguments)
    assert result.status == STATUS[signal.Signals(numbers[0])], result.err
    assert f"interrupted; go on with: segshrink {' '.join(map(str, arguments))} --resume" in result.err
    assert "Traceback" not in result.err
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    assert not (out / "evaluation.json").exists()
    assert not left_behind(tmp_path)


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("tune r.yaml -o study", " --resume"),
        ("distill r.yaml --resume", ""),
        ("prune model -r r.yaml", " --resume"),
        ("predict model scenes", ""),
        ("prune model", None),
        ("evaluate model", None),
    ],
)
def test_what_can_be_gone_on_with_says_how(typed: str, again: str | None) -> None:
    going_on = "" if again is None else f"; go on with: segshrink {typed}{again}"
    assert interrupted_sentence(typed.split()) == f"interrupted{going_on}"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_a_training_with_loading_processes_ends_with_them(
    segshrink, recipe: Path, tmp_path: Path, at: Callable[..., None]
) -> None:
    at(callbacks.StepProgress, "on_train_batch_end", signal.SIGTERM)
    result = segshrink("train", recipe, "-o", tmp_path / "run", "crops.workers=2")
    assert result.status == 143, result.err
    assert not [name for name in children() if b"pytest" in name and b"resource_tracker" not in name]


def test_an_evaluation_that_is_told_to_end_leaves_nothing(
    segshrink, model: Path, data: Path, tmp_path: Path, at: Callable[..., None]
) -> None:
    at(sys.modules["segshrink.evaluation.pictures"], "write_index_png", signal.SIGTERM, signal.SIGTERM)
    out = tmp_path / "scores"
    result = segshrink("evaluate", model, "--data", data, "--out", out)
    assert result.status == 143
    assert result.err.splitlines()[-1] == "interrupted"
    assert not list(out.rglob("*.png"))
    assert not left_behind(tmp_path)


def test_a_prediction_that_is_told_to_end_leaves_nothing_and_goes_on(
    segshrink, onnx_file: Path, data: Path, tmp_path: Path, at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "maps"
    arguments = ("predict", onnx_file, data.parent / "val/images", "-o", out)
    at(SceneResults, "write", signal.SIGTERM)
    result = segshrink(*arguments)
    assert result.status == 143, result.err
    assert f"go on with: segshrink {' '.join(map(str, arguments))}" in result.err
    assert not left_behind(tmp_path)
    assert not list(out.glob("*.png"))
    monkeypatch.undo()
    assert segshrink(*arguments).status == 0
    assert {path.name for path in out.glob("*.png")} == {"v0.png", "v1.png"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_watch_ends_in_order_when_it_is_told_to(
    segshrink, onnx_file: Path, data: Path, tmp_path: Path, at: Callable[..., None], number: int
) -> None:
    """In the middle of a scene; what is whole stays, and a bad file was told of."""
    inbox, out = tmp_path / "in", tmp_path / "maps"
    inbox.mkdir()
    first, last = sorted((data.parent / "val/images").iterdir())[:2]
    (inbox / f"1{first.suffix}").write_bytes(first.read_bytes())
    (inbox / "2.png").write_bytes(b"no picture")
    (inbox / f"3{last.suffix}").write_bytes(last.read_bytes())
    arguments = ("predict", onnx_file, "--watch", inbox, "-o", out, "--interval", 0.05)
    finished = SceneResults.finish

    def first_only(self: SceneResults) -> None:
        finished(self)
        at(SceneResults, "write", number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneResults, "finish", first_only)
        result = segshrink(*arguments)
    assert result.status == STATUS[signal.Signals(number)], result.err
    assert str(out / "1.png") in result.out
    assert "left out: " in result.err
    assert "2.png" in result.err
    assert {path.name for path in out.glob("*.png")} == {"1.png"}
    assert not left_behind(tmp_path)
    refused = segshrink(*arguments, first)
    assert refused.status == 2
    assert "--watch" in refused.sentence


def test_a_benchmark_that_is_told_to_end_takes_its_processes_along(
    segshrink, onnx_file: Path, tmp_path: Path, at: Callable[..., None]
) -> None:
    at(latency, "_warm_up", signal.SIGTERM)
    run = ("--runtime", "onnxruntime", "--size", 32, "--batch", 1, "--threads", 1)
    result = segshrink("benchmark", onnx_file, *run, "-o", tmp_path / "out")
    assert result.status == 143, result.err
    assert not left_behind(tmp_path)
    assert not (tmp_path / "out/benchmark.json").exists()
    assert not [name for name in children() if b"worker.py" in name]


def test_a_cache_that_is_told_to_end_keeps_what_is_whole(
    segshrink, model: Path, recipe: Path, tmp_path: Path, at: Callable[..., None]
) -> None:
    at(cache, "encode", signal.SIGTERM)
    answers = tmp_path / "answers"
    result = segshrink(
        "distill", recipe, "-o", tmp_path / "run", "-t", model, f"distillation.teacher_cache={answers}", "--no-doctor"
    )
    assert result.status == 143, result.err
    assert "go on with: segshrink distill" in result.err
    assert not left_behind(tmp_path)


def test_who_ignores_hangups_goes_on(segshrink, data: Path, at: Callable[..., None]) -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        at(json, "loads", signal.SIGHUP)
        assert segshrink("inspect", data).status == 0
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_request_that_python_drops_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_AGAIN", 0.01)

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def wait() -> None:
        Finalized()
        for _ in range(3000):
            time.sleep(0.01)

    with pytest.raises(Terminated) as caught, ending_on_signals():
        wait()
    assert caught.value.code == 143


def test_a_scheduler_sees_that_a_training_was_ended(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", str(recipe), "-o", str(out), "teacher.training.epochs=1000", "crops.workers=1"]
    program = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 1500
        while not (out / "checkpoints/last.ckpt").exists() and program.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(program.pid, signal.SIGTERM)  # its loading process, too
        _, err = program.communicate(timeout=600)
    finally:
        program.kill()
    assert program.returncode == 143, err
    assert "Traceback" not in err
    assert f"go on with: segshrink {' '.join(arguments)} --resume" in err
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    with pytest.raises(ProcessLookupError):
        os.killpg(program.pid, 0)  # nobody is left of its session


def test_a_reader_that_has_gone_ends_a_verb_without_a_word(data: Path) -> None:
    for arguments in (["inspect", str(data)], ["--version"], ["train", "--help"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=write, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False
        )
        os.close(write)
        assert not [word for word in ("Traceback", "Exception", "error", "Broken") if word in done.stderr]
        assert done.returncode in (1, 141)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), ""),
        (MemoryError("Unable to allocate 29.8 GiB for an array with shape (4,)"), "29.8 GiB more"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 32768 bytes."),
            "32768 bytes more",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.00 GiB more"),
        (RuntimeError("std::bad_alloc"), ""),
        (RuntimeError("can't start new thread"), ""),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), ""),
        (OSError(12, "Cannot allocate memory"), ""),
    ],
    ids=lambda value: str(value)[:30],
)
def test_memory_that_is_used_up_is_one_sentence(
    segshrink, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, wanted: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("segshrink.training.run.build_for_data", fail)
    result = segshrink("train", recipe, "-o", tmp_path / "run")
    assert result.status == 1
    assert "memory" in result.sentence
    assert wanted in result.sentence
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("megabytes", [150, 800])
def test_a_limit_on_memory_ends_in_one_sentence(recipe: Path, tmp_path: Path, megabytes: int) -> None:
    pytest.importorskip("resource")
    limited = f"ulimit -v {megabytes * 1000}; exec {' '.join(PROGRAM)} train {recipe} -o {tmp_path / 'run'}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "memory" in sentence
    assert f"{megabytes * 1000 * 1024 / 1e6:.0f} MB" in sentence
    assert not left_behind(tmp_path)
