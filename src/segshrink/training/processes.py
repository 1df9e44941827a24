"""Processes that train one network together, each on a device of its own.

One leads: it does everything around the training, and it alone writes. The others follow: each waits for a training,
takes part in it, and waits for the next one. torchrun and srun start all of them; else the leader starts the others,
for the length of a training.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from segshrink.config import Training
from segshrink.config.launch import Launch, check_launch
from segshrink.errors import ConfigError, SegshrinkError, TrainingError, first_line
from segshrink.files import scratch_folder
from segshrink.signals import END, Terminated
from segshrink.training.hardware import accelerator, check_devices
from segshrink.user_code import all_trusted, trusted_functions

# Followers wait while the leader decodes, evaluates and measures.
_PATIENCE = timedelta(days=2)
# How torch's backends say that another process has gone.
_GONE = re.compile(r"closed by peer|reset by peer|gloo|NCCL|broken pipe|TCPStore", re.IGNORECASE)
_Built = TypeVar("_Built")


@dataclass(frozen=True)
class Processes:
    """The processes of a training, and which of them this one is.

    Attributes:
        launch: How they were started.
        channel: Their group for what isn't on GPUs; None for one process alone.
    """

    launch: Launch
    channel: Any = None

    def in_turn(self, build: Callable[[], _Built]) -> _Built:
        """Build what lies on disks: the leader first, then a process of each other machine, then the others.

        So what one has built in a shared folder is there for those that come after.
        """
        if self.channel is None:
            return build()
        turn = 0 if self.launch.rank == 0 else 1 if self.launch.local_rank == 0 else 2
        self._wait(turn)
        built = build()
        self._wait(3 - turn)
        return built

    def _wait(self, times: int) -> None:
        for _ in range(times):
            torch.distributed.barrier(group=self.channel)


# What followers do: it is sent to them.
Work = Callable[[Processes], object]


class Environment(LightningEnvironment):
    """Tells Lightning where this process stands, however it was started."""

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self._launch = launch

    @property
    def creates_processes_externally(self) -> bool:
        """Whether Lightning needn't start others."""
        return True

    def local_rank(self) -> int:
        """Number of the process on its machine."""
        return self._launch.local_rank

    def node_rank(self) -> int:
        """Number of the machine."""
        return self._launch.node

    def teardown(self) -> None:
        """Leave the variables of the process as they are."""


def leading(training: Training, *, batch_size: int) -> Launch:
    """Return how this process was started, where it may lead a training.

    Raises:
        ConfigError: Other processes were started than the recipe wants, there are too few GPUs, or another one leads.
    """
    check_devices(training)
    if training.processes == 1:
        return Launch()
    launch = check_launch(training, os.environ, batch_size=batch_size)
    if launch.rank:
        raise ConfigError(
            f"{launch.by} started this as process {launch.rank + 1} of {launch.processes}, which only segshrink train "
            "and distill take part in; start this program alone, and it starts the others itself"
        )
    return launch


@contextmanager
def together(launch: Launch, count: int, work: Work, *, threads: int) -> Iterator[Processes]:
    """Let other processes do ``work`` during the block.

    Args:
        launch: How this process, which leads, was started.
        count: How many processes train, this one included.
        work: What the others do.
        threads: Of each process.

    Raises:
        ConfigError: The work can't be sent to other processes.
        TrainingError: One of them has ended.
    """
    if count == 1:
        yield Processes(launch)
        return
    with _threads(threads):
        if launch.by != "hand":
            processes = _joined_once(launch, _meeting_place(launch))
            with _losses_explained(()):
                _send(work, processes)
                yield processes
            return
        with _followers(count) as (place, logs), _losses_explained(logs):
            processes = _joined(Launch(processes=count), place)
            try:
                _send(work, processes)
                yield processes
            finally:
                torch.distributed.destroy_process_group()


def follow(place: str | None = None) -> None:
    """Take part in the trainings of the process that leads, until it ends.

    Args:
        place: Where the processes meet; None: as torchrun or srun say.
    """
    logging.getLogger("segshrink").setLevel(logging.ERROR)  # the leader has said it
    for number in (signal.SIGINT, *END):  # whoever waits has nothing to save
        signal.signal(number, signal.SIG_DFL)
    launch = Launch.of(os.environ)
    processes = _joined(launch, place or _meeting_place(launch))
    try:
        while (received := _received(processes)) is not None:
            work, trusted = received
            # Where the leader was told to end, too, it does when it has saved.
            with suppress(KeyboardInterrupt, Terminated), trusted_functions(*trusted):
                work(processes)
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        raise SystemExit(1) from error  # another says why


def _joined(launch: Launch, place: str) -> Processes:
    """Meet the other processes."""
    on_gpus = accelerator() == "cuda"
    if on_gpus:
        torch.cuda.set_device(launch.local_rank)
    torch.distributed.init_process_group(
        "nccl" if on_gpus else "gloo",
        init_method=place,
        rank=launch.rank,
        world_size=launch.processes,
        timeout=_PATIENCE,
    )
    world = torch.distributed.group.WORLD
    return Processes(launch, torch.distributed.new_group(backend="gloo", timeout=_PATIENCE) if on_gpus else world)


# Whoever was started with others meets them once.
_joined_once = cache(_joined)


def _meeting_place(launch: Launch) -> str:
    """Return where the processes meet that torchrun or srun started."""
    if launch.by == "torchrun" or {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return "env://"
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_JOB_NODELIST", "127.0.0.1"))
    port = 15000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 10000
    return f"tcp://{SLURMEnvironment.resolve_root_node_address(nodes)}:{port}"


def _send(work: Work, processes: Processes) -> None:
    try:
        torch.distributed.broadcast_object_list([(work, all_trusted())], src=0, group=processes.channel)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{processes.launch.processes} processes can't train this, since it can't be sent to them "
            f"({first_line(error)}); define it in a module of its own, or set training.devices=1"
        ) from error


def _received(processes: Processes) -> tuple[Work, list[str]] | None:
    """Wait for a training, and the functions that the leader's user trusts; None: the leader has ended."""
    box: list[Any] = [None]
    try:
        torch.distributed.broadcast_object_list(box, src=0, group=processes.channel)
    except RuntimeError:
        return None
    received: tuple[Work, list[str]] = box[0]
    return received


@contextmanager
def _followers(count: int) -> Iterator[tuple[str, Sequence[Path]]]:
    """Start the other processes, and end them after the block; yields where to meet and what they say."""
    with scratch_folder() as folder:
        place = f"file:///{(folder / 'meeting').as_posix().lstrip('/')}"
        logs = [folder / f"process-{rank}.log" for rank in range(1, count)]
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank, log in enumerate(logs, start=1):
                numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
                environment = {**os.environ, **paths, **{name: str(number) for name, number in numbers.items()}}
                with log.open("wb") as stream:
                    command = [sys.executable, "-m", "segshrink.training", place]
                    started.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=stream))
            yield place, logs
        finally:
            for process in started:
                process.kill()  # it has nothing to save
                process.wait()


@contextmanager
def _losses_explained(logs: Sequence[Path]) -> Iterator[None]:
    """Say that another process has ended where torch says that it can't be reached, and what its log ends with."""
    try:
        yield
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        last = [lines[-1] for log in logs if (lines := log.read_text(errors="replace").strip().splitlines())]
        said = f": {last[0].partition('Error: ')[2] or last[0]}" if last else "; what it said stands above"
        raise TrainingError(f"another process of this training has ended{said}") from error


def _is_loss(error: RuntimeError) -> bool:
    return not isinstance(error, SegshrinkError) and _GONE.search(str(error)) is not None


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give each process so many threads, which Lightning would choose otherwise; afterwards this one has its own."""
    name = "OMP_NUM_THREADS"
    before, former = torch.get_num_threads(), os.environ.get(name)
    os.environ[name] = str(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if former is None:
            del os.environ[name]
        else:
            os.environ[name] = former
