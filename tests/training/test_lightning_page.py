"""The page and the notebook that lead from a training script to a distilled ONNX file."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segshrink import Predictor, SegmentationModel, load_model

DOCS = Path(__file__).parents[2] / "docs"


def blocks_of_page() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / "lightning.md").read_text(), re.DOTALL)


def lines_of(code: str) -> list[str]:
    return [line for line in code.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Run the page's script on fewer and smaller things; return the folder that it wrote and its variables."""
    script, loading = blocks_of_page()
    for written, small in (("return 64", "return 8"), ("resnet34", "resnet18"), ("max_epochs=4", "max_epochs=1")):
        assert written in script
        script = script.replace(written, small)
    folder = tmp_path_factory.mktemp("page")
    names: dict[str, Any] = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(folder)
        warnings.simplefilter("ignore")  # Lightning's advice
        exec(compile(script, "docs/lightning.md", "exec"), names)  # noqa: S102
        names["load_model"] = load_model
        names["trained"] = names["model"]
        exec(compile(loading, "docs/lightning.md", "exec"), names)  # noqa: S102
    return folder, names


def test_thirty_lines_lead_to_a_distilled_file(trained: tuple[Path, dict[str, Any]]) -> None:
    assert len(lines_of(blocks_of_page()[0])) <= 30
    folder, names = trained
    model: SegmentationModel = names["trained"].eval()
    image = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
    expected = Predictor(model, precision="32").predict_array(image)
    prediction = Predictor(folder / "student.onnx").predict_array(image)
    assert prediction.index.shape == (70, 100)
    assert (prediction.index == expected.index).mean() > 0.99
    assert model.description.classes.names == ("ground", "roof")


def test_what_was_saved_comes_back(trained: tuple[Path, dict[str, Any]]) -> None:
    _, names = trained
    loaded, model = names["model"], names["trained"]
    assert loaded is not model
    assert loaded.description == model.description
    weights = model.state_dict()
    assert all((value == weights[name]).all() for name, value in loaded.state_dict().items())


def test_the_notebook_is_the_page() -> None:
    notebook = json.loads((DOCS / "notebooks/start.ipynb").read_text())
    assert notebook["nbformat"] == 4
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert lines_of(code) == lines_of(blocks_of_page()[0])
    assert all(not cell.get("outputs") for cell in notebook["cells"])
