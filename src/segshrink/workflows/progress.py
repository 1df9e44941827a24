"""How far a verb has come, told to whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol


class Progress(Protocol):
    """Called by a verb after each step of a stage.

    Args:
        stage: What is being done, such as "train student".
        done: Steps that are done, at least 0.
        total: Steps of the stage.
        note: A short text beside the numbers, such as the loss.
    """

    def __call__(self, stage: str, done: float, total: float, note: str = "", /) -> None:
        """Show it."""


def silent(stage: str, done: float, total: float, note: str = "", /) -> None:
    """Show nothing."""


def stages(progress: Progress) -> Callable[[str], AbstractContextManager[Callable[..., None]]]:
    """Return a function that opens a stage by name, and gives what its steps are told to."""

    @contextmanager
    def stage(name: str) -> Iterator[Callable[..., None]]:
        yield partial(progress, name)

    return stage
