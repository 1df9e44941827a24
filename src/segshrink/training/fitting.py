"""Letting Lightning fit, without its advice and without losing Ctrl-C."""

from __future__ import annotations

import warnings
from pathlib import Path

import lightning

from segshrink.data import CropModule
from segshrink.training.callbacks import interrupt_restored
from segshrink.training.task import SegmentationTask


def fit(
    trainer: lightning.Trainer, task: SegmentationTask, data: CropModule, *, checkpoint: Path | None = None
) -> None:
    """Fit ``task`` to ``data``, from a checkpoint on where one is given and exists.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    if checkpoint is not None and not checkpoint.exists():
        checkpoint = None  # interrupted in the first epoch: begin again
    with warnings.catch_warnings(), interrupt_restored():
        # Lightning advises more data loading processes without looking at what loading costs here.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
        try:
            trainer.fit(task, data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
        except SystemExit as stop:
            # Lightning turns an interrupt into an exit.
            if not isinstance(stop.__context__, KeyboardInterrupt):
                raise
            raise KeyboardInterrupt from None
