"""Checkpoints written whole or not at all, and read without running code."""

from __future__ import annotations

import io
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import nn

from segshrink.errors import ModelError, TrainingError
from segshrink.files import replacing
from segshrink.models.weights import read_checkpoint
from segshrink.run_folder import RunFolder

# What Lightning needs to go on.
_PARTS = {"callbacks", "epoch", "global_step", "loops", "lr_schedulers", "optimizer_states", "state_dict"}
_LOGGER = logging.getLogger(__name__)


def mend_checkpoint(folder: RunFolder) -> None:
    """Put the state of the epoch before in the last one's place where the last one can't be read, and say so.

    Raises:
        TrainingError: There is no earlier state, or it can't be gone on from, either.
    """
    last, previous = folder.last_checkpoint, folder.previous_checkpoint
    try:
        check_checkpoint(last)
    except TrainingError as error:
        if not (isinstance(error.__cause__, ModelError) and previous.exists()):
            raise
        check_checkpoint(previous)
        _LOGGER.warning("%s, so this training goes on from the epoch before", error.__cause__)
        previous.replace(last)


def check_checkpoint(path: Path, module: nn.Module | None = None) -> None:
    """Refuse a checkpoint to go on from that is damaged, could run code, or isn't one of ``module``'s.

    Raises:
        TrainingError: It is.
    """
    if not path.exists():
        return
    try:
        content = read_whole_checkpoint(path)
    except ModelError as error:
        raise TrainingError(f"can't go on from {error}; or delete it to begin this training again") from error
    fits = isinstance(content, dict) and content.keys() >= _PARTS and isinstance(content["state_dict"], dict)
    if not fits or (module is not None and _shapes(content["state_dict"]) != _shapes(module.state_dict())):
        raise TrainingError(
            f"can't go on from {path}: it isn't a checkpoint of this training; delete it to begin this training again"
        )


def read_whole_checkpoint(path: Path) -> Any:
    """Read a checkpoint of this program, whose every byte is as it was written; torch itself compares no checksums.

    Raises:
        FileError: The file can't be read.
        ModelError: It is damaged, or could run code.
    """
    content = read_checkpoint(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise ModelError(f"{path} is damaged; its checksums don't fit its content")
    return content


def _shapes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, "shape", None) for name, value in tensors.items()}


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name, then renames; keeps the state before the last one.

    Lightning's own writer goes through the system's temporary folder; where that is another disk, a run interrupted
    while copying is left with half a checkpoint under the final name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            FileError: The folder can't be written or the disk is full.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        run = RunFolder(Path(path).parent.parent)
        with replacing(Path(path)) as temporary, content.getbuffer() as written:
            temporary.write_bytes(written)
            if Path(path) == run.last_checkpoint and run.last_checkpoint.exists():
                _keep(run.last_checkpoint, run.previous_checkpoint)


def _keep(path: Path, name: Path) -> None:
    """Give a file a second name, where the disk has none a copy."""
    with replacing(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
