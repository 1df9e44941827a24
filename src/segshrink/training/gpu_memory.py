"""What to write where a GPU has no memory for a step: the largest batch that fits, found by trying."""

from __future__ import annotations

import gc
from typing import Any

import lightning
import torch

from segshrink.data import CropModule
from segshrink.data.crop_dataset import collate
from segshrink.training.hardware import device_name
from segshrink.training.task import SegmentationTask


def out_of_gpu_memory(trainer: lightning.Trainer, task: SegmentationTask, data: CropModule) -> str:
    """Say that a step takes more memory than the GPU has, and with which batches it would fit.

    Args:
        trainer: Whose training ran out of memory, and has ended.
        task: What it trained.
        data: On what.
    """
    batch, size, processes = data.crops.batch_size, data.crops.size, trainer.world_size
    said = f"{device_name()} has no memory for a step of {batch // processes} crops of {size} × {size} pixels"
    crops, count = data.train_crops(), batch // processes // 2
    while count and not _fits(trainer, task, [crops[0, position] for position in range(count)]):
        count //= 2
    if not count:
        return f"{said}, nor for fewer; choose smaller crops (crops.size), or a smaller network"
    fitting = count * processes
    return (
        f"{said}, but for {count}; set crops.batch_size={fitting}, and multiply training.accumulate by "
        f"{-(-batch // fitting)} to learn from as many crops in a step"
    )


def _fits(trainer: lightning.Trainer, task: SegmentationTask, items: list[dict[str, Any]]) -> bool:
    """Whether losses of crops, and their gradients, can be computed."""
    device = trainer.strategy.root_device
    gc.collect()
    torch.cuda.empty_cache()
    try:
        task.to(device)
        batch = {name: values.to(device) for name, values in collate(items).items()}
        with trainer.precision_plugin.forward_context():
            values = task.term_values(batch)
        losses = [weight * values[label] for label, (weight, _) in task.labeled_terms.items()]
        torch.autograd.backward(losses)
    except torch.OutOfMemoryError:
        return False
    finally:
        task.zero_grad(set_to_none=True)
    return True
