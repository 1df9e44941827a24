from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segshrink.compression.budget import Budget, UnmetBudgetError
from segshrink.compression.search import Outcome, Settings, compress
from segshrink.config import Recipe
from segshrink.errors import ConfigError, FileError, ModelError, TrainingError

FAMILIES = ("mobile", "separable-unet", "unet")


def search(recipe: Recipe, stages: Any, out: Path, budget: str, **options: Any) -> Outcome:
    resume = options.pop("resume", False)
    stages.recipe, stages.settings = recipe, Settings(families=FAMILIES, **options)
    return compress(stages, Budget.parse(budget), out=out, resume=resume)


def statuses(out: Path) -> dict[str, tuple[str, str]]:
    listed = json.loads((out / "candidates.json").read_text())["candidates"]
    return {one["name"]: (one["status"], one["reason"]) for one in listed}


def test_the_most_accurate_file_within_the_budget_is_chosen_and_copied(recipe: Recipe, stages: Any, tmp_path: Path):
    out = tmp_path / "out"
    outcome = search(recipe, stages, out, "latency<=20ms,size<=600kB,drop<=2")
    assert (outcome.chosen.name, outcome.file.precision) == ("mobile", "int8")
    assert outcome.model == out / "model.onnx"
    assert outcome.model.read_bytes() == b"mobile int8"
    chosen = json.loads((out / "chosen.json").read_text())
    assert chosen["candidate"] == "mobile"
    assert chosen["mean_iou"] == pytest.approx(0.636)
    assert chosen["times_faster"] == pytest.approx(400 / 15)
    status = statuses(out)
    assert status["mobile"] == ("chosen", "the most accurate within the budget (int8 on onnxruntime)")
    assert status["unet-width8"] == ("unfit", "too slow: latency 30 ms > 20 ms (int8 on onnxruntime)")
    assert status["separable-unet-width0.125"][0] == "missed"
    assert "distilled, but too inaccurate: drop 5" in status["separable-unet-width0.125"][1]


def test_all_candidates_are_measured_before_anything_is_trained(recipe: Recipe, stages: Any, tmp_path: Path):
    search(recipe, stages, tmp_path / "out", "latency<=20ms", candidates=2)
    kinds = [call.split()[0] for call in stages.calls]
    assert kinds.index("prepare_teacher") == max(place for place, kind in enumerate(kinds) if kind == "measure") + 1
    assert kinds.count("distill") == 2
    status = statuses(tmp_path / "out")
    assert status["mobile-blocks7"] == ("not distilled", "not among the 2 to distill")


def test_an_impossible_budget_is_refused_before_training(recipe: Recipe, stages: Any, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(UnmetBudgetError) as caught:
        search(recipe, stages, out, "latency<=1ms,size<=1MB")
    message = str(caught.value)
    assert "latency<=1ms binds" in message
    assert "nothing was trained" in message
    assert "\n" not in message
    assert not any(call.startswith(("prepare_teacher", "distill")) for call in stages.calls)
    assert statuses(out)["mobile"][0] == "unfit"  # what was measured stays
    assert not (out / "pareto.json").exists()


def test_the_results_list_every_candidate_and_the_front(recipe: Recipe, stages: Any, tmp_path: Path):
    out = tmp_path / "out"
    search(recipe, stages, out, "latency<=20ms,drop<=2")
    content = json.loads((out / "pareto.json").read_text())
    assert content["budget"] == "latency<=20ms,drop<=2"
    assert content["teacher"]["latency_ms"] == 400
    rows = {row["label"]: row for row in content["rows"]}
    assert rows["mobile, fp32 on onnxruntime"]["on_front"]
    assert rows["mobile, int8 on onnxruntime"]["on_front"]
    assert [row["label"] for row in content["rows"] if row["on_front"]] == content["front"]
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "compress.md").read_text()
    for entry in content["candidates"]:
        assert f"| {entry['name']} |" in page
    assert "| chosen |" in page
    assert "26.7 times as fast as the teacher" in page


def test_nothing_is_accurate_enough(recipe: Recipe, stages: Any, tmp_path: Path):
    out = tmp_path / "out"
    stages.teacher_iou = 0.80
    with pytest.raises(UnmetBudgetError, match=r"drop<=1 binds; the nearest, mobile .* reaches drop 16\.\d\d points"):
        search(recipe, stages, out, "latency<=20ms,drop<=1")
    assert json.loads((out / "pareto.json").read_text())["chosen"] is None
    assert (out / "pareto.png").exists()
    assert not list(out.glob("model.*"))
    assert not (out / "chosen.json").exists()


def test_limits_are_judged_by_the_last_measurement(recipe: Recipe, stages: Any, tmp_path: Path):
    stages.slower_at_the_end = 1.5
    outcome = search(recipe, stages, tmp_path / "out", "latency<=20ms")
    assert outcome.chosen.name == "mobile-blocks7"
    assert statuses(tmp_path / "out")["mobile"] == (
        "missed", "distilled, but too slow: latency 22.5 ms > 20 ms (int8 on onnxruntime)",
    )  # fmt: skip


def test_a_pruned_candidate_trains_what_it_is_pruned_from_first(recipe: Recipe, stages: Any, tmp_path: Path):
    out = tmp_path / "out"
    outcome = search(recipe, stages, out, "latency<=12ms,miou>=0.61", candidates=2)
    (name,) = [name for name in statuses(out) if "pruned" in name]
    assert stages.calls.index("distill mobile") < stages.calls.index(f"distill {name}")
    assert outcome.chosen.name == name
    assert statuses(out)["mobile"][1].endswith("trained to be pruned")
    assert stages.calls.count("distill mobile") == 1


def test_quantization_may_cost_what_the_budget_leaves(recipe: Recipe, stages: Any, tmp_path: Path):
    stages.int8_drop = 0.001
    search(recipe, stages, tmp_path / "out", "latency<=20ms,size<=1.9MB,drop<=1.2", candidates=2)
    built = [call.removeprefix("build ") for call in stages.calls if call.startswith("build ")]
    drops = dict(zip(built, stages.drops, strict=True))
    assert drops["mobile"] == pytest.approx(0.2)  # 1.2 points, less the one that the distilled student lost
    assert drops["separable-unet-width0.125"] == pytest.approx(0.1)  # 5 points down already


def test_a_candidate_that_fails_does_not_end_the_search(recipe: Recipe, stages: Any, tmp_path: Path):
    stages.broken, stages.diverging = ("unet-width8",), ("mobile",)
    outcome = search(recipe, stages, tmp_path / "out", "latency<=20ms")
    status = statuses(tmp_path / "out")
    assert status["unet-width8"] == ("failed", "unet-width8 can't be exported")
    assert status["mobile"] == ("failed", "the loss became NaN")
    assert outcome.chosen.name == "mobile-blocks7"


def test_when_every_training_fails_the_search_does_too(recipe: Recipe, stages: Any, tmp_path: Path):
    stages.diverging = ("mobile", "mobile-blocks7", "separable-unet-width0.125")
    with pytest.raises(TrainingError, match="NaN"):
        search(recipe, stages, tmp_path / "out", "latency<=20ms")


def test_when_nothing_can_be_measured_the_first_reason_is_told(recipe: Recipe, stages: Any, tmp_path: Path):
    stages.measure = lambda candidate: (_ for _ in ()).throw(ModelError(f"no {candidate.name}"))
    with pytest.raises(ModelError, match="no candidate could be measured; the first, mobile: no mobile"):
        search(recipe, stages, tmp_path / "out", "latency<=20ms")


def test_a_folder_that_holds_a_search_is_gone_on_with_only_when_asked(recipe: Recipe, stages: Any, tmp_path: Path):
    out = tmp_path / "out"
    search(recipe, stages, out, "latency<=20ms")
    with pytest.raises(FileError, match="already holds a search; add --resume"):
        search(recipe, stages, out, "latency<=20ms")
    outcome = search(recipe, stages, out, "latency<=10ms,miou>=0.6", resume=True)
    assert outcome.chosen.name == "mobile-pruned57"
    assert (out / "model.onnx").read_bytes() == b"mobile-pruned57 int8"


def test_an_interrupted_search_leaves_what_it_knew(recipe: Recipe, stages: Any, tmp_path: Path):
    def interrupted(entry: Any, base: Any) -> Any:
        raise KeyboardInterrupt

    stages.distill = interrupted
    with pytest.raises(KeyboardInterrupt):
        search(recipe, stages, tmp_path / "out", "latency<=20ms")
    assert statuses(tmp_path / "out")["unet-width8"][0] == "unfit"


def test_a_recipe_without_student_and_senseless_settings_are_refused(recipe: Recipe, stages: Any, tmp_path: Path):
    with pytest.raises(ConfigError, match="has no 'student' section"):
        search(recipe.model_copy(update={"student": None}), stages, tmp_path, "latency<=20ms")
    with pytest.raises(ConfigError, match="names no teacher"):
        search(recipe.model_copy(update={"teacher": None}), stages, tmp_path, "latency<=20ms")
    with pytest.raises(ConfigError, match="unknown runtime 'openvin'; did you mean 'openvino'"):
        Settings(runtimes=("openvin",))
    with pytest.raises(ConfigError, match="candidates must be at least 1, found 0"):
        Settings(candidates=0)


def test_a_candidate_whose_files_all_die_is_a_row_and_not_the_end(
    recipe: Recipe, stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    measure_final, dying = stages.measure_final, ["mobile"]

    def dies(entries: Any, reference: Any) -> Any:
        measured, reference = measure_final(entries, reference)
        reason = ("the process was ended by SIGSEGV",)
        return [replace(one, files=(), refused=reason) if one.name in dying else one for one in measured], reference

    monkeypatch.setattr(stages, "measure_final", dies)
    outcome = search(recipe, stages, tmp_path / "out", "latency<=20ms")
    assert outcome.chosen.name != "mobile"
    assert statuses(tmp_path / "out")["mobile"] == ("failed", "the process was ended by SIGSEGV")
    assert "SIGSEGV" in (tmp_path / "out" / "compress.md").read_text()
    dying += [one["name"] for one in json.loads((tmp_path / "out" / "candidates.json").read_text())["candidates"]]
    with pytest.raises(ModelError, match="SIGSEGV"):
        search(recipe, stages, tmp_path / "again", "latency<=20ms")
