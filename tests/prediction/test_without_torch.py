"""Prediction in an environment that has the package's own dependencies alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from segshrink.classes import ClassMap
from segshrink.export import export_onnx
from segshrink.models import build_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment without extras; installing takes seconds from uv's cache."""
    uv = shutil.which("uv") or shutil.which(str(ROOT / ".venv-uv/bin/uv"))
    if uv is None:
        pytest.skip("uv isn't installed")
    folder = tmp_path_factory.mktemp("bare") / "venv"
    python = folder / "bin" / "python"
    for command in (
        [uv, "venv", "--quiet", "--python", "3.11", str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), "-c", "constraints.txt", "-e", "."],
    ):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            pytest.skip(f"no environment can be made here: {done.stderr.strip().splitlines()[-1]}")
    return python


def test_a_scene_is_predicted_where_torch_is_not_installed(python: Path, tmp_path: Path) -> None:
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in missing.stderr
    torch.manual_seed(0)
    model = build_model("unet", ClassMap.build([("a", None, None), ("b", None, None)]), options={"width": 4})
    onnx = export_onnx(model, tmp_path / "model.onnx")
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", height=40, width=50, count=3, dtype="uint8",
        transform=rasterio.Affine(1, 0, 5, 0, -1, 5),
    ) as dataset:  # fmt: skip
        dataset.write(np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8))
    command = [python.with_name("segshrink"), "predict", onnx, tmp_path / "scene.tif", "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".tif", ".xml", ".qml", ".jpg", ".sqlite"}
    imported = subprocess.run(
        [python, "-W", "error", "-c", "import segshrink.prediction"], capture_output=True, text=True, check=False
    )
    assert imported.returncode == 0, imported.stderr
    folder = subprocess.run(
        [python.with_name("segshrink"), "predict", tmp_path, tmp_path / "scene.tif", "-o", tmp_path / "other"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert folder.returncode == 1
    assert "[train]'" in folder.stderr
