"""``segshrink compress`` through the command line, with everything expensive replaced, and once for real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from segshrink.compression.search.candidates import CandidateResult, Reference
from segshrink.compression.search.stages import SearchStages

from ..compression.search.conftest import FakeStages


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> type[FakeStages]:
    from segshrink.workflows import compress

    FakeStages.made.clear()
    monkeypatch.setattr(compress, "SearchStages", FakeStages)
    monkeypatch.setattr(compress, "write_report", lambda runs, out: None)
    monkeypatch.setattr(compress, "write_model_card", lambda outcome: [])
    return FakeStages


def test_the_chosen_file_and_what_became_of_the_others(segshrink, recipe: Path, fakes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = segshrink("compress", recipe, "--budget", "latency<=11ms,drop<=3", "--out", out, "--candidates", "1")
    assert result.status == 0, result.err
    assert "chosen: unet-width4-depth2, fp32 on onnxruntime" in result.out
    assert "too slow: latency 100 ms > 11 ms" in result.out
    assert (out / "model.onnx").read_bytes() == b"unet-width4-depth2 fp32"
    assert json.loads((out / "chosen.json").read_text())["budget"] == "latency<=11ms,drop<=3"
    (stages,) = fakes.made
    assert stages.work == out / "work"
    assert stages.calls[0] == "measure unet-width4-depth2"  # the recipe's own student


def test_options_reach_the_search(segshrink, recipe: Path, fakes, tmp_path: Path) -> None:
    result = segshrink(
        "compress", recipe, "-b", "drop<=3", "-o", tmp_path / "out", "--runtime", "both", "--size", "128",
        "--threads", "1", "--families", "unet", "--work", tmp_path / "shared", "--teacher", "somewhere", "seed=7",
    )  # fmt: skip
    assert result.status == 0, result.err
    (stages,) = fakes.made
    assert stages.settings.runtimes == ("onnxruntime", "openvino")
    assert (stages.settings.size, stages.settings.threads, stages.settings.families) == (128, 1, ("unet",))
    assert stages.work == tmp_path / "shared"
    assert [one.source for one in stages.recipe.distillation.teachers] == ["somewhere"]
    assert stages.recipe.seed == 7
    assert not [call for call in stages.calls if "separable" in call]


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
    def interrupted(self: FakeStages, result: CandidateResult, base: CandidateResult | None) -> CandidateResult:
        raise KeyboardInterrupt

    arguments = ("compress", recipe, "--budget", "drop<=3", "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(fakes, "distill", interrupted)
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
    """Once for real: a teacher is trained, the student measured, distilled, quantized, scored, measured and chosen."""
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

    # Another budget trains and quantizes nothing anew, and a size that no file has is refused.
    def measure_final(
        self: Any, results: Sequence[CandidateResult], reference: Reference
    ) -> tuple[list[CandidateResult], Reference]:
        return [
            replace(result, files=tuple(replace(file, latency_ms=1.0) for file in result.files)) for result in results
        ], reference

    monkeypatch.setattr(SearchStages, "measure_final", measure_final)
    monkeypatch.setattr(import_module("segshrink.workflows.compress"), "write_report", lambda runs, out: None)
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.safetensors")}
    other = segshrink("compress", *arguments, "--resume", "--budget", "parameters<=1M")
    assert other.status == 0, other.err
    refused = segshrink("compress", *arguments, "--resume", "--budget", "size<=1kB")
    assert refused.status == 1
    assert "size<=1kB binds; the nearest, unet-width4-depth2 (int8 on onnxruntime)" in refused.sentence
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.safetensors")} == before
