"""Loss terms, presets and networks as a recipe's user meets them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file


def columns(run: Path) -> set[str]:
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    return {name for name, value in rows[-1].items() if name.startswith("train/") and float(value) >= 0}


def test_a_preset_on_features_trains_beside_its_control(
    segshrink: Callable[..., Any], recipe: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = segshrink("distill", recipe, "-t", model, "-o", out, "--control", "--force", "distillation.preset=fitnet")
    assert result.status == 0, result.err
    assert columns(out) == {"train/loss", "train/cross_entropy", "train/pixel_kl", "train/hint"}
    assert columns(out / "control") == {"train/loss", "train/cross_entropy"}
    student, control = (load_file(run / "model" / "model.safetensors") for run in (out, out / "control"))
    assert student.keys() == control.keys()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distillation.terms=[{name: hnt}]", "did you mean 'hint'"),
        ("distillation.terms=[{name: channel_kl, options: {tau: 4}}]", "no option 'tau'"),
        ("distillation.preset=cwdd", "did you mean 'cwd'"),
        ("distillation={preset: cwd, terms: [{name: hint}]}", "both 'preset' and 'terms'"),
        ("distillation={preset: cirkd, teacher_cache: true}", "distillation.teacher_cache=false"),
        ("distillation={preset: dist, confidence_weighting: true}", "pixel_kl"),
        ("distillation.terms=[{name: hint, student: encoder.0, teacher: encodr}]", "'teacher' features"),
        ("distillation={preset: fitnet, precision: int8}", "set it to auto"),
        ("student.model={id: mobil}", "did you mean 'mobile'"),
        ("student.model={id: smp:Unet/mobilenet_v2, encoder_weights: nowhere.pth}", "no weight file at"),
    ],
)
def test_wrong_terms_and_networks_are_refused_before_a_teacher_is_trained(
    segshrink: Callable[..., Any], recipe: Path, tmp_path: Path, override: str, message: str
) -> None:
    result = segshrink("distill", recipe, "-o", tmp_path / "run", override)
    assert result.status != 0
    assert message in result.sentence
    assert not (tmp_path / "run").exists()


def test_an_unknown_tap_names_the_nearest(
    segshrink: Callable[..., Any], recipe: Path, model: Path, tmp_path: Path
) -> None:
    terms = "distillation.terms=[{name: hint, student: encoder.0, teacher: encodr.1}]"
    result = segshrink("distill", recipe, "-t", model, "-o", tmp_path / "run", terms)
    assert result.status != 0
    assert "'teacher' features" in result.sentence
    assert "encoder.1" in result.sentence
