"""Which model is measured on which runtime; from models to rows, JSON and Markdown. The timing itself is replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segshrink.config import DatasetDescription
from segshrink.errors import ConfigError, FileError, MissingExtraError, ModelError, UsageError, install_command
from segshrink.evaluation import evaluate
from segshrink.profiling import Job, Measurement
from segshrink.profiling import benchmark as comparison
from segshrink.profiling.benchmark import benchmark, plan
from segshrink.profiling.load import Load
from segshrink.profiling.results import table, write_results

from .conftest import NAMES, PARAMETERS, write_onnx


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Latency in ms is 100 times the batch, plus 10 times the threads, plus 1 for OpenVINO; "bad" files fail."""
    seen: list[Job] = []
    load = Load(10.0, 6.0, 2)

    def measure(jobs: Sequence[Job], **_: Any) -> list[Measurement]:
        seen.extend(jobs)
        return [one(job) for job in jobs]

    def one(job: Job) -> Measurement:
        if "bad" in job.source.name:
            return Measurement(job, error=f"{job.title} failed", load=load)
        median = 100.0 * job.batch + 10.0 * job.cores + (job.runtime == "openvino")
        return Measurement(job, {"median": median, "p95": median + 5, "runs": 20}, 50.0 + job.batch, 40.0, load=load)

    monkeypatch.setattr(comparison, "measure", measure)
    return seen


@pytest.fixture
def files(onnx_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    return onnx_model, Path(shutil.copy(onnx_model, tmp_path / "bad_|_file.onnx"))


def test_rows_hold_their_own_measurements(timed: list[Job], files: tuple[Path, Path]) -> None:
    result = benchmark(files, runtimes=("onnxruntime", "openvino"), batches=(1, 8), threads=(1, 3), size=64)
    assert [(job.batch, job.cores) for job in timed[::4]] == [(1, 1), (1, 3), (8, 1), (8, 3)], "one shape at a time"
    rows = result.to_dict()["rows"]
    assert [(row["model"], row["runtime"]) for row in rows] == [
        ("tiny", "onnxruntime"),
        ("tiny", "openvino"),
        ("bad_|_file", "onnxruntime"),
        ("bad_|_file", "openvino"),
    ]
    medians = [[one["latency_ms"]["median"] for one in row["measurements"]] for row in rows[:2]]
    assert medians == [[110, 130, 810, 830], [111, 131, 811, 831]]
    assert rows[0]["measurements"][2]["images_s"] == pytest.approx(8 / 0.810, abs=1e-3)
    assert rows[0]["measurements"][2]["throughput_mpixel_s"] == pytest.approx(8 * 64**2 / 1e6 / 0.810, abs=1e-3)
    assert (rows[0]["file"], rows[0]["parameters"], rows[0]["macs"]) == (files[0].name, PARAMETERS, None)
    assert rows[0]["file_bytes"] == files[0].stat().st_size
    assert rows[2]["measurements"][0]["latency_ms"] is None
    assert len(rows[2]["errors"]) == 4
    assert f"{files[1]} on ONNX Runtime (1 image of 64 × 64, 1 thread) failed" in result.messages


def test_files_tell_everything(timed: list[Job], files: tuple[Path, Path], tmp_path: Path) -> None:
    result = benchmark(files, runtimes=("onnxruntime",), batches=(1,), threads=(2,))
    written = write_results(result, tmp_path / "out")
    assert [file.name for file in written] == ["benchmark.json", "benchmark.md"], "no figure without mIoU"
    found = json.loads(written[0].read_text())
    assert found["machine"]["cpu"]
    assert found["versions"]["onnxruntime"]
    assert found["load"] == {"others": 0.3, "cores": 2, "seconds": 10.0, "busy": True}
    assert found["date"].endswith("+00:00")
    assert found["data"] is None
    headings, rows = table(result)
    assert headings == ["model", "runtime", "parameters", "file", "memory", "batch 1\n2 threads"]
    assert rows[0][-2:] == ["51 MB", "120 ms\np95 125 ms\n2.18 Mpx/s"]
    assert rows[1][-2:] == ["–", "–"]
    text = written[1].read_text()
    assert "| 120 ms<br>p95 125 ms<br>2.18 Mpx/s |" in text
    assert r"bad\_\|\_file" in text, "a name breaks no table"
    assert "other programs took 30% of the 2 cores" in text


def test_scores_become_a_figure(
    timed: list[Job], files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, str, str]] = []

    def evaluate(file: Path, data: Any, split: str, *, runtime: str, precision: str, progress: Any) -> SimpleNamespace:
        assert (data, split) == (fields, "test")
        asked.append((file, runtime, precision))
        progress(1, 3)
        if "bad" in file.name:
            raise ModelError("other classes")
        return SimpleNamespace(scores=SimpleNamespace(mean_iou=0.7), interval=SimpleNamespace(mean_iou=(0.6, 0.8)))

    fields = SimpleNamespace(description=SimpleNamespace(name="fields"), leaking=True)
    monkeypatch.setattr(comparison, "open_for_scores", lambda data, split: fields)
    monkeypatch.setattr(comparison, "check_isolated", lambda *_, **__: None)
    monkeypatch.setattr("segshrink.evaluation.evaluate", evaluate)
    steps: list[tuple[int, int, str]] = []
    result = benchmark(
        files,
        runtimes=("openvino",),
        precisions=("auto", "32"),
        batches=(1,),
        threads=(1,),
        data="fields.yaml",
        split="test",
        progress=lambda *step: steps.append(step),
    )
    assert asked == [(file, "openvino", precision) for file in files for precision in ("auto", "32")]
    assert (4, 32, "evaluate tiny on OpenVINO (1/3 images)") in steps
    assert steps[-1][:2] == (32, 32)
    first = result.to_dict()["rows"][0]
    assert (first["mean_iou"], first["mean_iou_interval"]) == (0.7, [0.6, 0.8])
    assert "bad_|_file on OpenVINO fp32 has no mIoU: other classes" in result.messages
    out = tmp_path / "out"
    written = write_results(result, out)
    assert (out / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert "mIoU on fields, test split (the split leaks" in written[1].read_text()


def test_nothing_measured_is_an_error(timed: list[Job], files: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match=r"bad_\|_file\.onnx on ONNX Runtime .* failed"):
        benchmark([files[1]], runtimes=("onnxruntime",), threads=(1, 2))
    with pytest.raises(ConfigError, match="size 0"):
        benchmark(files, size=0)
    with pytest.raises(ConfigError, match="runs in 5 rounds"):
        benchmark(files, runs=2)
    assert len(timed) == 4


def test_a_runtime_that_dies_is_one_row(onnx_model: Path, tmp_path: Path, stand_in: Callable[[str, str], None]) -> None:
    stand_in("openvino", "aborts")
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / part / "a.png")
        Image.fromarray(rng.integers(0, 3, (32, 32), np.uint8)).save(tmp_path / part / "a.mask.png")
    data = DatasetDescription.model_validate(
        {
            "name": "noise",
            "root": str(tmp_path),
            "images": "*/a.png",
            "masks": "*/a.mask.png",
            "classes": [{"name": name, "value": value} for value, name in enumerate(NAMES)],
            "split": {"train": ["train"], "val": ["val"]},
        }
    )
    result = benchmark(
        [onnx_model], runtimes=("onnxruntime", "openvino"), data=data, batches=(1,), threads=(1,), size=32,
        runs=1, rounds=1,
    )  # fmt: skip
    alive, dead = result.rows
    assert alive.measurements[0].latency_ms
    assert alive.mean_iou is not None
    assert not alive.errors
    assert len(dead.errors) == 2  # it has no mIoU, and no latency
    assert all("SIGABRT" in error and "openvino" in error.lower() for error in dead.errors)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    for folder in ("runs/student/model", "runs/teacher/model", "other/student/model"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").touch()
    for file in ("small.onnx", "small.xml", "notes.txt"):
        (tmp_path / file).write_bytes(b"1")
    return {path.name: path for path in tmp_path.iterdir()} | {"root": tmp_path}


def combined(*arguments: Path, **options: object) -> list[tuple[str, str, str]]:
    """Model, runtime and precision of each row."""
    entries, _ = plan(arguments, **({"runtimes": None, "precisions": ("auto",)} | options))  # type: ignore[arg-type]
    return [(entry.model, entry.runtime, entry.precision) for entry in entries]


def test_every_runtime_that_suits(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "find_spec", lambda name: object())
    assert combined(sources["runs"] / "student", sources["small.onnx"]) == [
        ("student", "torch", "auto"),
        ("student", "torch-compile", "auto"),
        ("student", "onnxruntime", "auto"),
        ("student", "openvino", "auto"),
        ("small", "onnxruntime", "auto"),
        ("small", "openvino", "auto"),
    ]


def test_precisions_are_for_runtimes_that_have_a_choice(sources: dict[str, Path]) -> None:
    found = combined(sources["small.onnx"], runtimes=("onnxruntime", "openvino"), precisions=("auto", "32", "auto"))
    assert found == [("small", "onnxruntime", "auto"), ("small", "openvino", "auto"), ("small", "openvino", "32")]


def test_names_are_short_and_unlike(sources: dict[str, Path]) -> None:
    root = sources["root"]
    paths = (root / "runs/student/model", root / "runs/teacher", root / "other/student", root / "runs/teacher")
    found = [model for model, *_ in combined(*paths, runtimes=("torch",))]
    assert found == ["model", "teacher", "student"]
    alike = (root / "small.onnx", root / "small.xml")
    assert [model for model, *_ in combined(*alike, runtimes=("openvino",))] == ["small.onnx", "small.xml"]
    twins = (root / "runs/student", root / "other/student")
    assert [model for model, *_ in combined(*twins, runtimes=("torch",))] == [str(path) for path in twins]


def test_what_is_not_installed_is_said(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "find_spec", lambda name: None if name == "openvino" else object())
    entries, notes = plan([sources["small.onnx"]], runtimes=None, precisions=("auto",))
    assert [entry.runtime for entry in entries] == ["onnxruntime"]
    assert notes == [f"OpenVINO is not installed, so it was not measured: {install_command('openvino')}"]
    with pytest.raises(MissingExtraError, match=r"OpenVINO .*\[openvino\]"):
        combined(sources["small.xml"])
    monkeypatch.setattr(comparison, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(MissingExtraError, match=r"PyTorch .*\[train\]"):
        combined(sources["runs"] / "student")


def test_what_does_not_suit_is_said(sources: dict[str, Path]) -> None:
    entries, notes = plan(
        [sources["small.onnx"], sources["small.xml"]], runtimes=("onnxruntime",), precisions=("auto",)
    )
    assert len(entries) == 1
    assert notes == [f"{sources['small.xml']} can't run in ONNX Runtime, but in OpenVINO"]
    with pytest.raises(ModelError, match=r"nothing can be measured.*can't run in PyTorch"):
        combined(sources["small.onnx"], runtimes=("torch",))


def test_wrong_input(sources: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="nothing to measure"):
        combined()
    with pytest.raises(FileError, match=r"absent\.onnx does not exist"):
        combined(sources["root"] / "absent.onnx")
    with pytest.raises(ModelError, match=r"notes\.txt is neither"):
        combined(sources["notes.txt"])
    with pytest.raises(ConfigError, match="runtime 'tensorrt' is unknown"):
        combined(sources["small.onnx"], runtimes=("tensorrt",))
    with pytest.raises(ConfigError, match="precision 'fp16' is unknown"):
        combined(sources["small.onnx"], precisions=("fp16",))


def test_the_mean_of_models_has_rows_on_what_runs_all(
    sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "find_spec", lambda name: object())
    student, teacher = sources["runs"] / "student", sources["runs"] / "teacher"
    found = combined(student, sources["small.onnx"], average=True, runtimes=("torch", "openvino"))
    assert found[-1] == ("average", "openvino", "auto")
    assert ("average", "torch", "auto") not in found
    rows, notes = plan([sources["small.onnx"], student], runtimes=("torch",), precisions=("auto",), average=True)
    assert [row.model for row in rows] == ["student"]
    assert notes[-1] == "no runtime was measured with all models of average, so their mean wasn't"
    members = property(lambda run: [student, teacher] if run.path.name == "bank" else [])
    monkeypatch.setattr(comparison.RunFolder, "members", members)
    bank = [("student", "torch", "auto"), ("teacher", "torch", "auto"), ("bank", "torch", "auto")]
    for average in (False, True):
        assert combined(sources["root"] / "bank", runtimes=("torch",), average=average) == bank
    with pytest.raises(UsageError, match="two models"):
        combined(student, average=True)


def test_an_average_is_timed_and_scored_as_one_model(onnx_model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / part / "a.png")
        Image.fromarray(rng.integers(0, 3, (32, 32), np.uint8)).save(tmp_path / part / "a.mask.png")
    classes = [{"name": name, "value": value} for value, name in enumerate(NAMES)]
    files = {"images": "*/a.png", "masks": "*/a.mask.png", "split": {"train": ["train"], "val": ["val"]}}
    data = DatasetDescription.model_validate({"name": "noise", "root": str(tmp_path), "classes": classes, **files})
    other = write_onnx(tmp_path / "other.onnx", seed=1)
    result = benchmark(
        [onnx_model, other], runtimes=("onnxruntime",), average=True, data=data, batches=(1,), threads=(1,), size=32,
        runs=1, rounds=1,
    )  # fmt: skip
    *single, mean = result.rows
    assert not mean.errors
    assert mean.measurements[0].latency_ms
    assert mean.measurements[0].peak_memory_mb
    assert mean.parameters == 2 * PARAMETERS
    assert mean.file_bytes == sum(path.stat().st_size for path in (onnx_model, other))
    assert mean.mean_iou == evaluate([onnx_model, other], data).scores.mean_iou
    assert mean.mean_iou not in [row.mean_iou for row in single]
    assert result.to_dict()["rows"][2]["average_of"] == ["tiny", "other"]
