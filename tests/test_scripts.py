"""The scripts in docs/: two earlier projects redone, and any folder to a small model, on tiny data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segshrink import build_model, load_dataset
from segshrink.cli import main

ROOT = Path(__file__).resolve().parents[1]
SHORT = [
    *("crops.size=32", "crops.batch_size=2", "crops.per_epoch=4", "crops.workers=0", "--no-doctor", "--force"),
    *("student.training.epochs=1", "student.training.threads=1"),
]

pytestmark = [
    pytest.mark.usefixtures("quick_runs"),
    pytest.mark.skipif(sys.platform == "win32", reason="the scripts are for bash"),
]


def run(tmp_path: Path, script: str, *arguments: object) -> int:
    """Run a script whose commands are noted, then each command in this process; return how many there were."""
    noted, stand_in = tmp_path / "commands", tmp_path / "bin" / "segshrink"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >> "{noted}"\nprintf "\\n" >> "{noted}"\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(ROOT / "docs" / script), *map(str, arguments)]
    subprocess.run(command, env={**os.environ, "PATH": path}, check=True)
    commands = [line.split("\0")[:-1] for line in noted.read_text().splitlines()]
    assert [main(command) for command in commands] == [0] * len(commands)
    return len(commands)


def draw(image: Path, mask: Path, values: np.ndarray, rng: np.random.Generator, palette: list[int] | None) -> None:
    for file, pixels in ((image, rng.integers(0, 256, (*values.shape[:2], 3), dtype=np.uint8)), (mask, values)):
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(pixels)
        if file == mask and palette is not None:
            picture.putpalette(palette)
        picture.save(file)


def test_the_page_of_half_the_filters_comes_out_of_three_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    colors = [entry.color for entry in load_dataset(ROOT / "configs" / "data" / "dubai.yaml").classes]
    table = np.array([[int(color[place : place + 2], 16) for place in (1, 3, 5)] for color in colors], np.uint8)
    for tile in (2, 4, 5, 6, 7, 8):
        for part in range(1, 10):
            mask = table[np.kron(rng.integers(0, len(table), (4, 4)), np.ones((12, 12), int))]
            names = (
                tmp_path / "dubai" / f"Tile {tile}" / f"{kind}/image_part_{part:03d}" for kind in ("images", "masks")
            )
            image, target = (path.with_suffix(suffix) for path, suffix in zip(names, (".jpg", ".png"), strict=True))
            draw(image, target, mask, rng, None)
    small = [f"{role}.model.options={{width: 2, batch_norm: false}}" for role in ("teacher", "student")]
    rest = ["teacher.training.epochs=1", "teacher.training.threads=1", *small, *SHORT]
    monkeypatch.chdir(ROOT)
    assert run(tmp_path, "half-unet.sh", tmp_path / "dubai", tmp_path / "out", *rest) == 3
    out = tmp_path / "out"
    found = json.loads((out / "report.json").read_text())
    assert len(found["models"]) == 3
    assert len(list((out / "figures").glob("image_*.png"))) == 10
    for part in ("loss.png", "loss.svg"):
        assert (out / "figures" / part).is_file()
    page = (out / "report.md").read_text()
    assert all(word in page for word in ("precision", "recall", "memory"))
    assert len(list((out / "maps").glob("*.png"))) == 9


def test_the_challenge_comes_out_of_three_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, voc = np.random.default_rng(0), tmp_path / "voc"
    description = load_dataset(ROOT / "configs" / "data" / "voc.yaml", [f"root={voc}"])
    for part in ("train", "val"):
        names = [f"{part}{number}" for number in range(3)]
        lists = voc / "ImageSets" / "Segmentation" / f"{part}.txt"
        lists.parent.mkdir(parents=True, exist_ok=True)
        lists.write_text("\n".join(names) + "\n")
        for number, name in enumerate(names):
            mask = np.repeat(np.arange(7, dtype=np.uint8) + 7 * number, 6)[:, None].repeat(40, axis=1)
            draw(voc / "JPEGImages" / f"{name}.jpg", voc / "SegmentationClass" / f"{name}.png", mask, rng, [0] * 768)
    build_model("unet", description.class_map(), options={"width": 2, "depth": 2}).save(tmp_path / "teacher")
    small = ["--teacher", tmp_path / "teacher", "student.model.options={width: 0.05}"]
    monkeypatch.chdir(ROOT)
    assert run(tmp_path, "separable-unet.sh", voc, tmp_path / "out", *small, *SHORT) == 3
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {model["role"] for model in found["models"]} == {"teacher", "student", "control"}
    assert (tmp_path / "out" / "student.onnx").is_file()


def test_three_commands_lead_from_a_folder_to_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "fields"
    for number in range(8):
        mask = np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), int)).astype(np.uint8)
        draw(folder / f"images/{number}.png", folder / f"masks/{number}.png", mask, rng, None)
    tiny = "{id: unet, options: {width: 2, depth: 2}}"
    rest = [f"teacher.model={tiny}", f"student.model={tiny}", "teacher.training.epochs=1", *SHORT[:4]]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAMILIES", "student")
    assert run(tmp_path, "three-commands.sh", folder, *rest, *SHORT[6:]) == 3
    assert Path("runs/fields-small/model.onnx").stat().st_size < 1_000_000
    assert "<canvas" in Path("runs/fields-small/map.html").read_text()
    found = json.loads(Path("runs/fields/report.json").read_text())
    assert {model["role"] for model in found["models"]} == {"teacher", "student", "control"}
    # The teacher that distill trained also teaches what compress looks at.
    assert [path.name for path in Path("runs").rglob("teacher-run*")] == ["teacher-run"]
