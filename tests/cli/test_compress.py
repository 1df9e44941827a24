"""``segshrink compress`` through the command line, with everything expensive replaced, and once for real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from segshrink.compression.search.candidates import Candidate
from segshrink.compression.search.records import Entry, MeasuredFile, Reference


class Tools:
    """Candidates that cost next to nothing; the wider, the slower and the better."""

    made: list[Tools] = []  # noqa: RUF012

    def __init__(self, recipe: Any, work: Path, settings: Any, show: Any) -> None:
        self.work, self.settings, self.teacher_folder = work, settings, work / "teacher"
        self.recipe = recipe
        self.calls: list[str] = []
        Tools.made.append(self)

    def measure(self, candidate: Candidate, base: Candidate | None) -> Entry:
        latency = 10.0 + len(Tools.made[-1].calls)
        self.calls.append(candidate.name)
        files = [
            MeasuredFile(runtime, precision, 400_000, latency, latency, 100.0)
            for runtime in self.settings.runtimes
            for precision in ("fp32", "int8")
        ]
        return Entry(candidate, 1000, 1000, tuple(files))

    def teach(self) -> Reference:
        return Reference("teacher", 0.7)

    def distil(self, entry: Entry, base: Entry | None) -> Entry:
        self.calls.append(f"distil {entry.name}")
        return replace(entry, run="run", mean_iou=0.68)

    def build(self, entry: Entry, *, max_drop: float) -> Entry:
        path = self.work / entry.name / "int8.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"model")
        return replace(
            entry, files=tuple(replace(one, path=str(path), mean_iou=0.68, accuracy=0.9) for one in entry.untrained)
        )

    def weigh(self, entries: Sequence[Entry], reference: Reference) -> tuple[list[Entry], Reference]:
        return list(entries), reference

    def profile(self, entry: Entry) -> None:
        self.calls.append(f"profile {entry.name}")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> type[Tools]:
    from segshrink.workflows import compress

    Tools.made.clear()
    monkeypatch.setattr(compress, "Workshop", Tools)
    monkeypatch.setattr(compress, "build_report", lambda runs, out: None)
    monkeypatch.setattr(compress, "describe_chosen", lambda outcome: [])
    return Tools


def test_the_chosen_file_and_what_became_of_the_others(segshrink, recipe: Path, fakes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = segshrink("compress", recipe, "--budget", "latency<=11ms,drop<=3", "--out", out, "--candidates", "1")
    assert result.status == 0, result.err
    assert "chosen: unet-width4-depth2, fp32 on onnxruntime" in result.out
    assert "too slow: latency 12 ms > 11 ms" in result.out
    assert (out / "model.onnx").read_bytes() == b"model"
    assert json.loads((out / "chosen.json").read_text())["budget"] == "latency<=11ms,drop<=3"
    (tools,) = fakes.made
    assert tools.work == out / "work"
    assert tools.calls[0] == "unet-width4-depth2"  # the recipe's own student


def test_options_reach_the_search(segshrink, recipe: Path, fakes, tmp_path: Path) -> None:
    result = segshrink(
        "compress", recipe, "-b", "drop<=3", "-o", tmp_path / "out", "--runtime", "both", "--size", "128",
        "--threads", "1", "--families", "unet", "--work", tmp_path / "shared", "--teacher", "somewhere", "seed=7",
    )  # fmt: skip
    assert result.status == 0, result.err
    (tools,) = fakes.made
    assert tools.settings.runtimes == ("onnxruntime", "openvino")
    assert (tools.settings.size, tools.settings.threads, tools.settings.families) == (128, 1, ("unet",))
    assert tools.work == tmp_path / "shared"
    assert [one.source for one in tools.recipe.distillation.teachers] == ["somewhere"]
    assert tools.recipe.seed == 7
    assert not [call for call in tools.calls if call.startswith("separable")]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--budget", "latenzy<=20ms"], "unknown limit 'latenzy'; did you mean 'latency'?"),
        (["--budget", ""], "the budget is empty"),
        (["--budget", "latency<=20ms", "--families", "mobil"], "unknown family 'mobil' in --families"),
        (["--budget", "latency<=1ms"], "latency<=1ms binds; the nearest, unet-width4-depth2"),
        (["--budget", "drop<=1"], "drop<=1 binds; the nearest, unet-width4-depth2"),
    ],
)
def test_bad_input_and_unmet_budgets_get_one_sentence(
    segshrink, recipe: Path, fakes, tmp_path: Path, options: list[str], told: str
) -> None:
    result = segshrink("compress", recipe, "--out", tmp_path / "out", *options)
    assert result.status == (1 if "binds" in told else 2)
    assert told in result.sentence
    assert not list((tmp_path / "out").glob("model.*"))


def test_going_on_has_to_be_asked_for_and_an_interrupt_says_how(
    segshrink, recipe: Path, fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Tools, entry: Entry, base: Entry | None) -> Entry:
        raise KeyboardInterrupt

    arguments = ("compress", recipe, "--budget", "drop<=3", "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(fakes, "distil", interrupted)
        stopped = segshrink(*arguments)
    assert stopped.status == 130
    assert stopped.err.rstrip().endswith("--resume")
    refused = segshrink(*arguments)
    assert refused.status == 1
    assert "--resume" in refused.sentence
    assert segshrink(*arguments, "--resume").status == 0


def test_a_recipe_without_a_student(segshrink, recipe: Path, fakes, tmp_path: Path) -> None:
    content = json.loads(recipe.read_text())
    del content["student"]
    recipe.write_text(json.dumps(content))
    result = segshrink("compress", recipe, "--budget", "drop<=3", "--out", tmp_path / "out")
    assert "has no 'student' section" in result.sentence


def test_from_labels_to_a_verified_int8_file(
    segshrink, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for real: a teacher is trained, the student measured, distilled, quantised, scored, measured and chosen."""
    from segshrink.prediction import open_backend

    out, work = tmp_path / "out", tmp_path / "work"
    arguments = (recipe, "--out", out, "--work", work, "--families", "student", "--size", "64", "--threads", "1")
    result = segshrink("compress", *arguments, "--budget", "size<=60kB,latency<=10s,drop<=100")
    assert result.status == 0, result.err
    found = json.loads((out / "pareto.json").read_text())
    chosen = found["chosen"]
    rows = {row["label"]: row for row in found["rows"]}
    assert set(rows) == {
        "teacher (PyTorch fp32)",
        "unet-width4-depth2, fp32 on onnxruntime",
        "unet-width4-depth2, int8 on onnxruntime",
    }
    assert chosen["mean_iou"] == max(row["mean_iou"] for label, row in rows.items() if label.startswith("unet"))
    assert chosen["drop"] == pytest.approx(100 * (found["teacher"]["mean_iou"] - chosen["mean_iou"]))
    for row in rows.values():
        assert 0 <= row["measurements"][0]["load"]["others"] <= 1
    assert "| load |" in (out / "compress.md").read_text()
    assert "share of the cores meanwhile" in (out / "model.md").read_text()
    assert open_backend(out / "model.onnx").num_classes == 3
    assert (out / "model.onnx").stat().st_size == chosen["file_bytes"]
    for name in ("compress.md", "pareto.png", "report.html", "candidates.json", "model.stac.json"):
        assert (out / name).exists(), name
    assert f"| mIoU | {chosen['mean_iou']:.3f} |" in (out / "model.md").read_text()

    # A file's score is that of evaluating it.
    evaluated = segshrink("evaluate", out / "model.onnx", "--data", tmp_path / "scenes" / "dataset.yaml")
    assert f"mIoU {chosen['mean_iou']:.3f}" in evaluated.out

    # Another budget trains and quantises nothing anew, and a size that no file has is refused.
    def weigh(self: Any, entries: Sequence[Entry], reference: Reference) -> tuple[list[Entry], Reference]:
        return [
            replace(one, files=tuple(replace(two, latency_ms=1.0) for two in one.files)) for one in entries
        ], reference

    monkeypatch.setattr(import_module("segshrink.compression.search.stages").Workshop, "weigh", weigh)
    monkeypatch.setattr(import_module("segshrink.workflows.compress"), "build_report", lambda runs, out: None)
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.safetensors")}
    other = segshrink("compress", *arguments, "--resume", "--budget", "parameters<=1M")
    assert other.status == 0, other.err
    refused = segshrink("compress", *arguments, "--resume", "--budget", "size<=1kB")
    assert refused.status == 1
    assert "size<=1kB binds; the nearest, unet-width4-depth2 (int8 on onnxruntime)" in refused.sentence
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.safetensors")} == before
