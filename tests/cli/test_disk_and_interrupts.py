"""Disks that are full or closed, and Ctrl-C, through the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = (sys.executable, "-m", "segshrink.cli")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "SEGSHRINK_ALLOCATOR": "default"}


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


def test_a_limit_on_the_size_of_files(model: Path, data: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from segshrink.cli import main\n"
        "import segshrink.export, segshrink.models, onnxscript\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"sys.exit(main(['export', {str(model)!r}, '-o', {str(tmp_path / 'model.onnx')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "model.onnx" in done.stderr
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


def test_ctrl_c_leaves_a_run_that_can_be_resumed(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", str(recipe), "-o", str(out), "teacher.training.epochs=1000"]
    program = subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        deadline = time.monotonic() + 300
        while not (out / "checkpoints/last.ckpt").exists() and program.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=120)
    finally:
        program.kill()
    assert program.returncode == 130, err
    assert "Traceback" not in err
    assert f"interrupted; go on with: segshrink {' '.join(arguments)} --resume" in err
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    assert not (out / "model").exists()
