"""Checkpoints that are damaged, foreign or half-written."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segshrink.config import Recipe
from segshrink.errors import FileError, ModelError, TrainingError
from segshrink.training import train
from segshrink.training.checkpoints import WholeCheckpointIO, read_whole_checkpoint

from .conftest import rows_of, stop_at


def same_weights(first: Path, second: Path) -> bool:
    one, other = (load_file(folder / "model/model.safetensors") for folder in (first, second))
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("spoil", ["pickle", "no checkpoint", "another network", "cut short", "empty"])
def test_checkpoints_that_can_not_be_gone_on_with_are_named(short: Recipe, tmp_path: Path, spoil: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(short, out=tmp_path, progress=stop_at(3))
    path = tmp_path / "checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    if spoil == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Path("x")}))
    elif spoil == "no checkpoint":
        torch.save({"state_dict": content["state_dict"]}, path)
    elif spoil == "another network":
        states = {name: torch.zeros(3) for name in content["state_dict"]}
        torch.save({**content, "state_dict": states}, path)
    else:
        path.write_bytes(path.read_bytes()[: 500 * (spoil == "cut short")])
    with pytest.raises(TrainingError, match=r"last\.ckpt.*delete it to begin"):
        train(short, out=tmp_path, resume=True)


def test_an_error_while_a_checkpoint_is_written_keeps_no_view_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the garbage collector finds in a traceback ends Python 3.12 with a segmentation fault."""
    views = []

    def full(self: Path, content: memoryview) -> int:
        views.append(content)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match="No space left"):
        WholeCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "run/checkpoints/last.ckpt")
    with pytest.raises(ValueError, match="released memoryview"):
        views[0].tobytes()


def spoil(checkpoint: Path) -> None:
    """Change one bit of the largest tensor."""
    with zipfile.ZipFile(checkpoint) as archive:
        entry = max(archive.infolist(), key=lambda each: each.file_size)
    content = bytearray(checkpoint.read_bytes())
    content[entry.header_offset + 128 + entry.file_size // 2] ^= 1  # behind the entry's header
    checkpoint.write_bytes(content)


def test_a_damaged_checkpoint_costs_the_last_epoch_only(
    short: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(short, out=whole)
    assert {path.name for path in (whole / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    with pytest.raises(KeyboardInterrupt):
        train(short, out=cut, progress=stop_at(7))
    last = cut / "checkpoints/last.ckpt"
    spoil(last)
    train(short, out=cut, resume=True)
    assert "last.ckpt is" in caplog.text
    assert "from the epoch before" in caplog.text
    assert same_weights(whole, cut)
    assert [row["epoch"] for row in rows_of(cut)] == [row["epoch"] for row in rows_of(whole)]
    spoil(whole / "checkpoints/best.ckpt")
    with pytest.raises(ModelError, match=r"best\.ckpt is .*damaged"):
        read_whole_checkpoint(whole / "checkpoints/best.ckpt")
