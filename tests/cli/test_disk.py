"""Disks that are full or closed, and limits on the size of files, through the command line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may write to."""
    if Path("/proc/sys").is_dir() and os.geteuid() == 0:
        yield Path("/proc/sys")  # root may write everywhere else
        return
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    yield folder
    folder.chmod(0o700)


def fill(folder: Path) -> None:
    """Leave no byte free."""
    with (folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 512)


def products(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_no_space_left_for_each_verb_that_writes(segshrink, model: Path, data: Path, tiny_disk: Path) -> None:
    fill(tiny_disk)
    image = data.parent / "val/images/v0.jpg"
    for arguments in (
        ("export", model, "-o", tiny_disk / "model.onnx"),
        ("evaluate", model, "--data", data, "--out", tiny_disk / "scores"),
        ("predict", model, image, "-o", tiny_disk / "out"),
    ):
        result = segshrink(*arguments)
        assert result.status == 1, arguments
        assert str(tiny_disk) in result.sentence
        assert "space" in result.sentence
    assert products(tiny_disk) == {"filler"}


def test_no_space_left_while_training(segshrink, recipe: Path, tiny_disk: Path) -> None:
    result = segshrink("train", recipe, "-o", tiny_disk / "run")
    assert result.status == 1
    assert str(tiny_disk) in result.sentence
    assert "space" in result.sentence
    assert not {"model.safetensors", "best.ckpt", "evaluation.json"} & products(tiny_disk)


def test_a_limit_on_the_size_of_files(segshrink, model: Path, onnx_file: Path, tmp_path: Path, small_files) -> None:
    assert onnx_file.stat().st_size > 1000  # exported once, so that all that exports is imported
    with small_files(1000):
        result = segshrink("export", model, "-o", tmp_path / "model.onnx")
    assert result.status == 1
    assert "model.onnx" in result.sentence
    assert not (tmp_path / "model.onnx").exists()


def test_no_permission(segshrink, model: Path, data: Path, recipe: Path, closed_folder: Path) -> None:
    image = data.parent / "val/images/v0.jpg"
    for arguments in (
        ("predict", model, image, "-o", closed_folder / "out"),
        ("export", model, "-o", closed_folder / "model.onnx"),
        ("evaluate", model, "--data", data, "--out", closed_folder / "scores"),
        ("train", recipe, "-o", closed_folder / "run"),
        ("demo", "-o", closed_folder / "demo"),
    ):
        result = segshrink(*arguments)
        assert result.status == 1, arguments
        assert str(closed_folder) in result.sentence
        assert any(word in result.sentence for word in ("permission", "another folder"))
