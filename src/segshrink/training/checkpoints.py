"""Checkpoints written whole or not at all, and read without running code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from segshrink.files import replacing


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name, then renames.

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
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())
