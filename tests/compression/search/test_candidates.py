from __future__ import annotations

import json
from pathlib import Path

import pytest

from segshrink.classes import ClassMap
from segshrink.compression.search.candidates import (
    Candidate,
    CandidateFile,
    CandidateResult,
    as_network,
    list_candidates,
    pruned,
)
from segshrink.config import ModelChoice
from segshrink.errors import ConfigError, FileError, UsageError
from segshrink.models import build_model

CLASSES = ClassMap.build([("a", "#000000", None), ("b", "#FFFFFF", None)])
RESULT = CandidateResult(
    Candidate("a", "unet", "unet"), 5, 6, (CandidateFile("onnxruntime", "fp32", 10, 1.0, 2.0, 0.0),)
)


def test_the_recipes_own_student_comes_first_and_its_family_before_others() -> None:
    listed = list_candidates(ModelChoice(id="separable-unet", options={"width": 0.3, "dropout": 0.1}))
    assert listed[0].from_recipe
    assert [one.from_recipe for one in listed].count(True) == 1
    assert listed[0].name == "separable-unet-width0.3-dropout0.1"
    assert [one.family for one in listed[:5]] == ["separable-unet"] * 5
    assert {"mobile", "unet"} <= {one.family for one in listed}
    # Other settings of the family hold for every width of it.
    assert all(one.options["dropout"] == 0.1 for one in listed if one.family == "separable-unet")
    assert len({one.name for one in listed}) == len({one.key for one in listed}) == len(listed)


def test_only_networks_of_the_same_width_keep_the_recipes_encoder_weights() -> None:
    listed = list_candidates(ModelChoice(id="mobile", encoder_weights=Path("weights.safetensors")))
    keeping = {one.name for one in listed if one.keeps_weights}
    coarse = "mobile-decoder64x48x32"
    assert keeping == {"mobile", "mobile-blocks9", "mobile-blocks7", coarse, f"{coarse}-blocks11", f"{coarse}-blocks9"}
    assert sum(one.key == listed[0].key for one in listed) == 1  # not twice: as own student and in its family


def test_networks_that_imagenets_weights_exist_for_start_from_them() -> None:
    listed = list_candidates(ModelChoice(id="mobile", encoder_weights="imagenet"), ["mobile", "unet", "smp:FPN"])
    starts = {one.name: one.keeps_weights for one in listed}
    assert {family for one in listed if (family := one.family) and starts[one.name]} == {"mobile", "smp:FPN"}
    lite = "mobile-decoder64x48x32-efficientnet_lite0"
    assert starts[lite]
    assert not starts["mobile-width0.5"]


def test_networks_like_a_ready_one_keep_its_encoder() -> None:
    first, *others = list_candidates(ModelChoice.model_validate({"start": "aerial"}), ["mobile"])
    assert (first.name, first.family, first.from_recipe) == ("aerial", "mobile", True)
    network = as_network(ModelChoice.model_validate({"start": "aerial"}))
    assert (network.id, network.encoder_weights, network.normalization) == ("mobile", Path("aerial"), "half")
    assert all(one.options != network.options for one in others)  # not once more at random
    assert {one.options["blocks"] for one in others if one.keeps_weights} == {7, 9}


def test_an_smp_student_brings_small_encoders_and_narrow_decoders() -> None:
    listed = list_candidates(ModelChoice(id="smp:Unet/efficientnet-b0"), ["smp:Unet"])
    assert listed[0].id == "smp:Unet/efficientnet-b0"
    assert {"smp:Unet/mobilenet_v2", "smp:Unet/resnet18"} <= {one.id for one in listed}
    assert [64, 32, 16, 8, 4] in [one.options.get("decoder_channels") for one in listed]


def test_families_may_be_chosen_and_any_id_is_a_family() -> None:
    student = ModelChoice(id="mobile")
    assert {one.family for one in list_candidates(student, ["unet"])} == {"mobile", "unet"}
    assert [one.id for one in list_candidates(student, ["student"])] == ["mobile"]
    listed = list_candidates(student, ["torchvision:lraspp_mobilenet_v3_large"])
    assert [one.id for one in listed] == ["mobile", "torchvision:lraspp_mobilenet_v3_large"]
    with pytest.raises(ConfigError, match="unknown family 'mobil' in --families; did you mean 'mobile'"):
        list_candidates(student, ["mobil"])
    with pytest.raises(UsageError, match="--families names nothing"):
        list_candidates(student, [" "])


def test_a_student_that_is_a_model_folder_has_the_family_of_its_network(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps({"id": "unet"}))
    student = list_candidates(ModelChoice(id=str(tmp_path / "small")))[0]
    assert (student.name, student.family, student.keeps_weights) == ("small", "unet", True)


def test_a_student_whose_folder_is_called_as_a_network_has_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mobile").mkdir()
    (tmp_path / "mobile" / "config.json").write_text(json.dumps({"id": "mobile"}))
    listed = list_candidates(ModelChoice(id=str(tmp_path / "mobile")))
    assert (listed[0].name, listed[0].from_recipe, listed[1].name) == ("start-mobile", True, "mobile")
    assert len({one.name for one in listed}) == len(listed)


def test_a_pruned_candidate_is_another_one() -> None:
    whole = list_candidates(ModelChoice(id="mobile"))[0]
    less = pruned(whole, macs=1000, share=0.618)
    assert (less.name, less.pruned_from, less.macs, less.from_recipe) == ("mobile-pruned62", "mobile", 1000, False)
    assert less.key != whole.key


def test_every_candidate_of_our_families_can_be_built_the_widest_first() -> None:
    for family in ("mobile", "espnetv2", "separable-unet", "unet"):
        listed = [one for one in list_candidates(ModelChoice(id="unet"), [family]) if one.family == family]
        for candidate in listed:
            model = build_model(candidate.id, CLASSES, options=candidate.options)
            assert (model.description.id, model.description.options) == (candidate.id, dict(candidate.options))


@pytest.mark.parametrize("value", [None, "x", {}, float("nan"), float("inf"), -1, 0, [[]]])
@pytest.mark.parametrize("part", ["parameters", "macs", "untrained", "files", "candidate", "latency_ms"])
def test_damaged_measurements_are_refused(part: str, value: object) -> None:
    whole = RESULT.to_dict()
    assert CandidateResult.from_dict(whole) == RESULT
    changed = {**whole, part: value}
    if part == "latency_ms":
        changed = {**whole, "untrained": [{**whole["untrained"][0], part: value}]}
    with pytest.raises(FileError, match="damaged"):
        CandidateResult.from_dict(changed)


def test_measurements_of_earlier_versions_are_read() -> None:
    """As version 0.1 wrote them into a work folder."""
    record = {
        "name": "unet-width4",
        "candidate": {
            "name": "unet-width4",
            "family": "unet",
            "id": "unet",
            "options": {"width": 4},
            "own": False,
            "keeps_weights": False,
            "pruned_from": None,
            "macs": None,
        },
        "parameters": 31114,
        "macs": 24494080,
        "untrained": [
            {
                "runtime": "onnxruntime",
                "precision": "fp32",
                "size_bytes": 131072,
                "latency_ms": 1.25,
                "latency_p95_ms": 1.5,
                "memory_mb": 61.0,
                "path": None,
                "mean_iou": None,
                "accuracy": None,
                "load": 0.01,
            }
        ],
        "run": None,
        "mean_iou": None,
        "files": [],
        "status": "measured",
        "reason": "",
        "refused": [],
    }
    result = CandidateResult.from_dict(record)
    assert (result.name, result.candidate.options, result.parameters) == ("unet-width4", {"width": 4}, 31114)
    assert result.untrained == (CandidateFile("onnxruntime", "fp32", 131072, 1.25, 1.5, 61.0, load=0.01),)
    assert result.timed_well
