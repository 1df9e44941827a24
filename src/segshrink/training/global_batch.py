"""The crops of a step on all processes: each computes its own and compares all of them.

So a loss is that of the whole batch, whatever it divides by, and whatever pixels or images it relates to each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segshrink.errors import DataError


@dataclass(frozen=True)
class Share:
    """Which crops of a step are this process's.

    Attributes:
        counts: Crops of each process, in the order of the batch; one process has all.
        rank: The number of this process.
    """

    counts: tuple[int, ...] = (0,)
    rank: int = 0

    @classmethod
    def of(cls, images: Tensor) -> Share:
        """Ask all processes for the crops (N, bands, H, W) that they have.

        Raises:
            DataError: They differ in more than their number.
        """
        shape = torch.tensor(images.shape, device=images.device)
        shapes = [torch.empty_like(shape) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(shapes, shape)
        sizes = [each.tolist() for each in shapes]
        if any(size[1:] != sizes[0][1:] for size in sizes):
            found = ", ".join(" × ".join(map(str, size)) for size in sizes)
            raise DataError(f"processes have batches of different images ({found}); crop them all to one size")
        return cls(tuple(size[0] for size in sizes), torch.distributed.get_rank())

    @property
    def own(self) -> slice:
        """Where this process's crops lie in the batch."""
        if len(self.counts) == 1:
            return slice(None)
        first = sum(self.counts[: self.rank])
        return slice(first, first + self.counts[self.rank])

    def gathered(self, values: Tensor) -> Tensor:
        """Return the values (N, ...) of all processes for their own crops.

        The gradient of a loss that every process computes from them alike is what DistributedDataParallel, which
        averages over processes, takes for the gradient of the one loss: of layers before and behind.
        """
        if len(self.counts) == 1:
            return values
        gathered: Tensor = _Gathered.apply(values, self)
        return gathered

    def gathered_batch(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a batch with the crops of all processes: what has the images' height and width, and numbers."""
        if len(self.counts) == 1:
            return batch
        size = batch["image"].shape[-2:]
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        of_crops = {name: value for name, value in tensors.items() if value.ndim == 1 or value.shape[-2:] == size}
        return {**batch, **{name: self.gathered(value) for name, value in of_crops.items()}}

    def _joined(self, values: Tensor) -> Tensor:
        channels_last = values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last)
        values = values.permute(0, 2, 3, 1) if channels_last else values.contiguous()
        # Bytes: every backend sends them. As many crops from each: what is lacking is cut off again.
        sent = values.new_zeros(max(self.counts), *values.shape[1:])
        sent[: len(values)] = values
        parts = [torch.empty_like(sent) for _ in self.counts]
        torch.distributed.all_gather([part.view(torch.uint8) for part in parts], sent.view(torch.uint8))
        joined = torch.cat([part[:count] for part, count in zip(parts, self.counts, strict=True)])
        return joined.permute(0, 3, 1, 2) if channels_last else joined


class _Gathered(torch.autograd.Function):
    """Values of all processes; only its own have a gradient here, as many times as there are processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: Share) -> Tensor:
        ctx.share = share
        return share._joined(values.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.share.own] * len(ctx.share.counts), None


def gathered_objects(value: Any) -> Sequence[Any]:
    """Return what each process has, in their order."""
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
