"""docs/losses.md names every loss, option and preset, with the weights that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segshrink.losses import PRESETS, REGISTRY

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "losses.md"
FRACTIONS = {"⅛": 0.125, "⅜": 0.375, "0.526": 10 / 19}


@pytest.fixture(scope="module")
def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REGISTRY)
def test_every_loss_has_a_section_with_its_options_and_a_cost(text: str, name: str) -> None:
    sections = re.findall(rf"^### .*`{name}`.*\n((?:(?!#).*\n)*)", text, flags=re.MULTILINE)
    assert len(sections) == 1
    for option in REGISTRY[name].options:
        assert f"`{option}`" in sections[0] or f"`{option}: " in sections[0]
    kinds = {"labels": ["labels"], "logits": ["logits"], "features": ["features"], "either": ["logits", "features"]}
    for kind in kinds[REGISTRY[name].compares]:
        assert re.search(rf"^\| `{name}` \| {kind} \| \d+\.\d \|$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_stands_with_its_weights(text: str, name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| ([\d.]+) \| (.*) \| .* \|$", text, flags=re.MULTILINE)
    assert float(row[0]) == PRESETS[name].labels
    stated = {loss: FRACTIONS.get(weight) or float(weight) for weight, loss in re.findall(r"(\S+) `(\w+)`", row[1])}
    assert stated == pytest.approx({term.name: term.weight for term in PRESETS[name].terms}, rel=1e-4)
