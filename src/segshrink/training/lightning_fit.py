"""Letting Lightning fit, without its advice and without losing Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import signal
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from segshrink.data import CropModule
from segshrink.errors import TrainingError
from segshrink.signals import Terminated, end
from segshrink.training.callbacks import InterruptBetweenSteps, interrupt_restored
from segshrink.training.checkpoints import check_checkpoint
from segshrink.training.gpu_memory import out_of_gpu_memory
from segshrink.training.task import SegmentationTask


def fit(
    trainer: lightning.Trainer, task: SegmentationTask, data: CropModule, *, checkpoint: Path | None = None
) -> None:
    """Fit ``task`` to ``data``, from a checkpoint on where one is given and exists.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        Terminated: SIGTERM or SIGHUP.
        TrainingError: A data loading process died, or a GPU has no memory for a step.
    """
    if checkpoint is not None and not checkpoint.exists():
        checkpoint = None  # interrupted in the first epoch: begin again
    if checkpoint is not None:
        check_checkpoint(checkpoint, task)
    try:
        _fit(trainer, task, data, checkpoint)
    except torch.OutOfMemoryError:
        pass  # with the error goes what it holds of the step
    else:
        return
    raise TrainingError(out_of_gpu_memory(trainer, task, data))


def quieten_lightning() -> None:
    """Silence what Lightning logs about hardware and its tips."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _fit(trainer: lightning.Trainer, task: SegmentationTask, data: CropModule, checkpoint: Path | None) -> None:
    with warnings.catch_warnings(), interrupt_restored():
        # Lightning advises more data loading processes without looking at what loading costs here.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
        # Where SLURM is installed, a training needn't be one of its tasks; what must be was looked at before.
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        # More processes than validation scenes.
        warnings.filterwarnings("ignore", message=".*local rank has zero length.*")
        try:
            trainer.fit(task, data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
            _interrupt_if_requested(trainer)
        except SIGTERMException:
            end(signal.SIGTERM)
        except Terminated:
            raise
        except SystemExit as stop:
            # Lightning turns an interrupt into an exit.
            if not isinstance(stop.__context__, KeyboardInterrupt):
                raise
            raise KeyboardInterrupt from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            _interrupt_if_requested(trainer)  # whoever ended us ended our processes, too
            raise TrainingError(
                "a process that loads training images was killed, perhaps for want of memory; go on with fewer of them "
                "(crops.workers), or none (crops.workers=0)"
            ) from error


def _interrupt_if_requested(trainer: lightning.Trainer) -> None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, InterruptBetweenSteps):
            callback.interrupt_if_requested()
