"""What a search needs done: measuring, teaching, exporting. The real thing is in ``stages.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from segshrink.compression.search.candidates import Candidate
from segshrink.compression.search.records import Entry, Reference
from segshrink.errors import ConfigError, UsageError, nearest

RUNTIMES = ("onnxruntime", "openvino")
# ``show(text)`` opens a progress bar, which gives ``advance(done, total, note="")``.
Advance = Callable[..., None]
Show = Callable[[str], AbstractContextManager[Advance]]


@dataclass(frozen=True)
class Settings:
    """How a search goes about it.

    Attributes:
        runtimes: What the small model will run on: "onnxruntime", "openvino", or both.
        size: Side in pixels of the square image that latency and memory are measured with.
        threads: Of the runtime; None takes all cores.
        families: Networks to look at; None takes the student's family and ours.
        candidates: How many to distil at most.
    """

    runtimes: tuple[str, ...] = ("onnxruntime",)
    size: int = 512
    threads: int | None = None
    families: tuple[str, ...] | None = None
    candidates: int = 3

    def __post_init__(self) -> None:
        if unknown := [name for name in self.runtimes if name not in RUNTIMES]:
            raise UsageError(f"unknown runtime '{unknown[0]}'{nearest(unknown[0], RUNTIMES)}")
        if not self.runtimes:
            raise ConfigError(f"no runtime is named; give one of {', '.join(RUNTIMES)}")
        for name, value, lowest in (("size", self.size, 32), ("candidates", self.candidates, 1)):
            if value < lowest:
                raise ConfigError(f"{name} must be at least {lowest}, found {value}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, found {self.threads}")


class Tools(Protocol):
    """Does a search's work; whatever was done before with the same content is not done again."""

    def measure(self, candidate: Candidate, base: Candidate | None) -> Entry:
        """Build a candidate with random weights and measure its fp32 and int8 files.

        Args:
            candidate: The network.
            base: What it is pruned from, if it is.

        Raises:
            ModelError: The network can't be built, pruned, exported or quantised.
        """
        ...

    def teach(self) -> Reference:
        """Train the recipe's teacher where none is named, and evaluate it."""
        ...

    def distil(self, entry: Entry, base: Entry | None) -> Entry:
        """Train a candidate with the teacher (a pruned one from its trained ``base``), and evaluate it.

        Raises:
            ConfigError: The recipe's terms don't fit the network.
            ModelError: The network doesn't fit the data.
            TrainingError: The loss became NaN or infinite.
        """
        ...

    def build(self, entry: Entry, *, max_drop: float) -> Entry:
        """Export and quantise a distilled candidate, and score each file itself on the validation split.

        Args:
            entry: A distilled candidate.
            max_drop: Points of mIoU that quantisation may cost.

        Raises:
            ModelError: The network can't be exported or quantised.
        """
        ...

    def weigh(self, entries: Sequence[Entry], reference: Reference) -> tuple[list[Entry], Reference]:
        """Measure all files of all entries anew, interleaved with the teacher in PyTorch fp32."""
        ...


@contextmanager
def silent(text: str) -> Iterator[Advance]:  # a bar's name
    """Show nothing."""
    yield lambda done, total, note="": None
