from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segshrink.compression.search import Settings, list_candidates, stages
from segshrink.compression.search.candidates import CandidateFile, CandidateResult, Reference, pruned
from segshrink.compression.search.stages import SearchStages
from segshrink.config import ModelChoice, Recipe
from segshrink.errors import ModelError
from segshrink.models import build_model, count_parameters, load_model
from segshrink.profiling.parameters_and_macs import count_macs


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / part / "a.png")
        Image.fromarray(rng.integers(0, 2, (48, 64), np.uint8)).save(tmp_path / part / "a.mask.png")
    return Recipe.model_validate(
        {
            "name": "noise",
            "data": {
                "name": "noise",
                "root": str(tmp_path),
                "images": "*/a.png",
                "masks": "*/a.mask.png",
                "classes": [{"name": "a", "value": 0}, {"name": "b", "value": 1}],
                "split": {"train": ["train"], "val": ["val"]},
            },
            "student": {
                "model": {"id": "mobile", "encoder_weights": "weights.safetensors", "normalization": "half"},
                "training": {"epochs": 7},
            },
            "distillation": {"inherit_encoder": True},
        }
    )


@pytest.fixture
def loads() -> list[float | None]:
    """What others take of the cores in the measurements to come; then the machine is quiet."""
    return []


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, loads: list[float | None]) -> list[Any]:
    """Settings that were measured with; nothing is exported."""
    calls: list[Any] = []

    def measure(files: Any, settings: Any, **options: Any) -> Any:
        calls.append(settings)
        load = loads.pop(0) if loads else 0.02
        return [CandidateFile("onnxruntime", "fp32", 10, 1.0, 2.0, 3.0, path="gone", load=load)]

    monkeypatch.setattr(stages, "export_untrained", lambda model, folder, runtimes: ([], []))
    monkeypatch.setattr(stages, "measure_files", measure)
    return calls


def test_a_candidate_is_measured_once_for_each_way_to_measure(recipe: Recipe, counted: list[Any], tmp_path: Path):
    small = next(one for one in list_candidates(recipe.student.model) if one.name == "unet-width4-depth4")
    search = SearchStages(recipe, tmp_path / "work", Settings(size=64, threads=1))
    first = search.measure(small)
    built = build_model("unet", search.dataset.classes, options={"width": 4, "depth": 4})
    assert (first.parameters, first.macs) == (count_parameters(built), count_macs(built, size=64))
    assert first.untrained[0].path is None  # a file of random weights is not kept
    assert search.measure(small) == first
    other = recipe.model_copy(update={"seed": 9})  # another training costs the same to run
    assert SearchStages(other, tmp_path / "work", Settings(size=64, threads=1)).measure(small) == first
    assert len(counted) == 1
    SearchStages(recipe, tmp_path / "work", Settings(size=96, threads=1)).measure(small)
    assert len(counted) == 2


def test_what_was_measured_on_a_busy_machine_is_not_kept(
    recipe: Recipe, counted: list[Any], loads: list[float | None], tmp_path: Path
) -> None:
    small = next(one for one in list_candidates(recipe.student.model) if one.name == "unet-width4-depth4")
    loads += [0.63, None]
    for times, load in enumerate((0.63, None, 0.02, 0.02), start=1):
        search = SearchStages(recipe, tmp_path / "work", Settings(size=64, threads=1))
        assert search.measure(small).untrained[0].load == load
        assert len(counted) == min(times, 3)


def test_measuring_disturbs_nobodys_random_numbers(recipe: Recipe, counted: list[Any], tmp_path: Path):
    import torch

    small = next(one for one in list_candidates(recipe.student.model) if one.name == "unet-width4-depth4")
    state = torch.random.get_rng_state()
    SearchStages(recipe, tmp_path / "work", Settings(size=64, threads=1)).measure(small)
    assert torch.equal(state, torch.random.get_rng_state())


def test_each_candidate_gets_the_recipe_with_its_network(recipe: Recipe, tmp_path: Path):
    search = SearchStages(recipe, tmp_path / "work", Settings())
    listed = {one.name: one for one in list_candidates(recipe.student.model)}
    assert search.recipe_of(listed["mobile"]) == recipe
    shorter = search.recipe_of(listed["mobile-blocks7"])
    assert shorter.student.model.options == {"blocks": 7}
    assert shorter.student.model.encoder_weights == recipe.student.model.encoder_weights
    assert shorter.distillation.inherit_encoder
    narrow = search.recipe_of(listed["mobile-width0.5"])
    assert narrow.student.model.encoder_weights is None
    assert not narrow.distillation.inherit_encoder
    assert narrow.student.training.epochs == 7
    assert narrow.student.model.normalization == "half"


def test_a_run_folder_is_named_after_what_the_training_depends_on(recipe: Recipe, tmp_path: Path):
    search = SearchStages(recipe, tmp_path / "work", Settings())
    search.identity = "one teacher"
    student = list_candidates(recipe.student.model)[0]
    folder = search.run_folder(student, recipe)
    assert folder.parent == tmp_path / "work" / "candidates"
    assert search.run_folder(student, recipe.model_copy(update={"name": "another name"})) == folder
    assert search.run_folder(student, recipe.model_copy(update={"seed": 1})) != folder
    search.identity = "another teacher"
    assert search.run_folder(student, recipe) != folder


def test_a_pruned_candidate_starts_from_its_trained_base(recipe: Recipe, counted: list[Any], tmp_path: Path):
    unet = ModelChoice(id="unet", options={"width": 16, "depth": 2}, normalization="half")
    unets = recipe.model_copy(update={"student": recipe.student.model_copy(update={"model": unet})})
    search = SearchStages(unets, tmp_path / "work", Settings(size=64, threads=1))
    student = list_candidates(unets.student.model)[0]
    base = search.measure(student)
    model = build_model("unet", search.dataset.classes, options={"width": 16, "depth": 2})
    model.save(tmp_path / "run" / "model")
    less = pruned(student, macs=base.macs // 2, share=0.5)
    measured = search.measure(less)
    assert measured.macs <= base.macs // 2
    assert measured.parameters < base.parameters
    prepared = search.recipe_of(less, replace(base, run=str(tmp_path / "run")))
    assert prepared.student.model == ModelChoice(id=prepared.student.model.id)  # the folder brings all the rest
    assert not prepared.distillation.inherit_encoder
    start = load_model(prepared.student.model.id)
    assert sum(one.numel() for one in start.parameters()) < base.parameters
    again = search.recipe_of(less, replace(base, run=str(tmp_path / "run")))
    assert again == prepared


def test_a_dead_runtimes_files_are_left_out_with_the_reason(
    recipe: Recipe, counted: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alive = CandidateFile("onnxruntime", "fp32", 10, 1.0, 2.0, 3.0, path="gone")
    answers: list[Any] = [alive, "the process was ended by SIGSEGV"]
    monkeypatch.setattr(stages, "measure_files", lambda files, settings, **options: answers)
    small = next(one for one in list_candidates(recipe.student.model) if one.name == "unet-width4-depth4")
    search = SearchStages(recipe, tmp_path / "work", Settings(size=64, threads=1))
    result = search.measure(small)
    assert [file.runtime for file in result.untrained] == ["onnxruntime"]
    assert result.refused == ("the process was ended by SIGSEGV",)
    assert CandidateResult.from_dict(result.to_dict()) == result
    trained = replace(result, files=(alive, replace(alive, runtime="openvino", mean_iou=0.5)))
    teacher = Reference("teacher", CandidateFile("torch", "fp32", 0, mean_iou=0.6))
    (final,), _ = search.measure_final([trained], teacher)
    assert [file.runtime for file in final.files] == ["onnxruntime"]
    assert final.refused == ("the process was ended by SIGSEGV",) * 2
    answers[:] = ["no kernel", "the process was ended by SIGSEGV"]
    with pytest.raises(ModelError, match=r"no kernel; .*SIGSEGV"):
        SearchStages(recipe, tmp_path / "other", Settings(size=64, threads=1)).measure(small)


def test_files_that_version_01_scored_are_found_again(recipe: Recipe, tmp_path: Path):
    """The folder is named after what was allowed, and the record is as version 0.1 wrote it."""
    record = {
        "segshrink": "0.1.0",
        "files": [
            {
                "runtime": "onnxruntime",
                "precision": "int8",
                "size_bytes": 584913,
                "latency_ms": 0.0,
                "latency_p95_ms": 0.0,
                "memory_mb": 0.0,
                "path": "quantized-onnxruntime/int8.onnx",
                "mean_iou": 0.632,
                "accuracy": 0.81,
                "load": None,
            }
        ],
        "refused": ["no kernel"],
    }
    store = tmp_path / "run" / "files" / "a1eb94465f" / "scored.json"
    store.parent.mkdir(parents=True)
    store.write_text(json.dumps(record))
    model = store.parent / "quantized-onnxruntime" / "int8.onnx"
    model.parent.mkdir()
    model.touch()
    search = SearchStages(recipe, tmp_path / "work", Settings())
    distilled = CandidateResult(list_candidates(recipe.student.model)[0], run=str(tmp_path / "run"), mean_iou=0.63)
    built = search.build(distilled, max_drop=0.5)
    (file,) = built.files
    assert (file.label, file.size_bytes, file.mean_iou) == ("int8 on onnxruntime", 584913, 0.632)
    assert built.refused == ("no kernel",)
    assert file.path == str(model)
    store.write_text(store.read_text().replace("quantized-onnxruntime/int8.onnx", str(model)))
    assert search.build(distilled, max_drop=0.5) == built


def test_files_of_a_moved_search_are_found_and_missing_ones_made_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = []

    def export(model: Any, recipe: Any, dataset: Any, folder: Path, *rest: Any, **options: Any) -> Any:
        made.append(folder)
        path = folder / "quantized-onnxruntime" / "int8.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return [CandidateFile("onnxruntime", "int8", 10, path=str(path))], []

    monkeypatch.setattr(stages, "export_trained", export)
    monkeypatch.setattr(stages, "load_model", lambda folder: None)
    monkeypatch.setattr(stages, "check_isolated", lambda path, **options: None)
    monkeypatch.setattr(stages.RunFolder, "recipe", lambda self: recipe)
    monkeypatch.setattr(SearchStages, "_score", lambda self, file, name: replace(file, mean_iou=0.5))
    search = SearchStages(recipe, tmp_path / "work", Settings())
    search.teaching = recipe.distillation
    distilled = CandidateResult(list_candidates(recipe.student.model)[0], run=str(tmp_path / "old"))
    search.build(distilled, max_drop=0.5)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = replace(distilled, run=str(tmp_path / "new"))
    (file,) = search.build(moved, max_drop=0.5).files
    assert file.mean_iou == 0.5
    path = Path(file.path or "")
    assert path.is_file()
    assert path.is_relative_to(tmp_path / "new")
    assert len(made) == 1
    path.unlink()
    assert search.build(moved, max_drop=0.5).files == (file,)
    assert len(made) == 2
