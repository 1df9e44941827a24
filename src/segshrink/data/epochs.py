"""Which crops a process loads in an epoch: a function of the epoch and of how far it got, never of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from segshrink.errors import ConfigError


def process_place() -> tuple[int, int]:
    """Return (rank, number of processes) of the distributed run; (0, 1) outside of one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def local_batch_size(batch_size: int) -> int:
    """Return how many crops of each step this process loads.

    Raises:
        ConfigError: The processes can't share a step's crops evenly.
    """
    _, processes = process_place()
    if batch_size % processes:
        raise ConfigError(
            f"crops.batch_size is {batch_size}, which {processes} processes can't share evenly; "
            f"choose a multiple of {processes}"
        )
    return batch_size // processes


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, position) pairs, so that data loading processes need no state besides them.

    Each process of a distributed run takes its part of every step's positions, in their order: all together take the
    same crops in a step as one process alone.

    Args:
        length: Crops of an epoch, over all processes.
        batch_size: Crops of a step, over all processes; divides ``length``.
        finished: Returns how many steps of the current epoch are already done; they are skipped.
    """

    def __init__(self, length: int, *, batch_size: int, finished: Callable[[], int] = lambda: 0) -> None:
        self.length = length
        self.batch_size = batch_size
        self.rank, self.processes = process_place()
        self.epoch = 0
        self._finished = finished

    def __len__(self) -> int:
        return self.length // self.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, share = self.epoch, self.batch_size // self.processes
        for first in range(self._finished() * self.batch_size, self.length, self.batch_size):
            for position in range(first + self.rank * share, first + (self.rank + 1) * share):
                yield epoch, position

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is; Lightning calls this."""
        self.epoch = epoch


class EpochLoader(DataLoader[dict[str, Any]]):
    """A loader that starts when its first batch is asked for, and that Lightning may resume within an epoch.

    Lightning makes an iterator before it has said which epoch it is and how far the epoch got; so the sampler must
    not be asked until a batch is wanted. Targets become int64 here and not earlier: what loading processes send lies in
    shared memory, of which containers often have 64 MB.

    Raises:
        ConfigError: Lightning put a sampler of its own in, which would give each process a part of its part.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]  # the base promises a private class
        if isinstance(self.sampler, DistributedSampler):
            raise ConfigError(
                "the crops of a step are shared among the processes already, and Lightning would share them once more; "
                "give its Trainer use_distributed_sampler=False"
            )
        for batch in super().__iter__():
            batch["target"] = batch["target"].long()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; how far the epoch got is counted by the trainer."""
        return {"epoch": self.sampler.epoch} if isinstance(self.sampler, EpochSampler) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on in the epoch of a checkpoint."""
        if isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(int(state_dict["epoch"]))
