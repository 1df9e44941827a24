"""What is measured, and what came out. Imports nothing heavy: the worker's process must stay small."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segshrink.errors import ConfigError, UsageError, nearest
from segshrink.machine import default_threads
from segshrink.prediction.backends import PRECISIONS
from segshrink.profiling.load import Load

if TYPE_CHECKING:
    from segshrink.prediction import Backend

# Runtime → the module that it needs, the extra that brings it, and how it is called in tables.
_RUNTIMES = {
    "torch": ("torch", "train", "PyTorch"),
    "torch-compile": ("torch", "train", "PyTorch compiled"),
    "onnxruntime": ("onnxruntime", None, "ONNX Runtime"),
    "openvino": ("openvino", "openvino", "OpenVINO"),
    "litert": ("ai_edge_litert", "tflite", "LiteRT"),
}
RUNTIMES = tuple(_RUNTIMES)
# Runtimes that compute in bf16 when left to themselves on a processor that can.
OWN_PRECISION = ("torch", "torch-compile", "openvino")


@dataclass(frozen=True)
class Job:
    """One thing to measure: a file or folder on one runtime, with images of one shape.

    Attributes:
        source: What ``segshrink.prediction.open_backend`` takes: a model or run folder, .onnx, .xml or .tflite.
        runtime: One of ``RUNTIMES``.
        precision: "auto" leaves bf16 to the runtime, "32" computes in fp32, "bf16" insists.
        size: Side in pixels of the square images.
        batch: Images at once.
        threads: Threads of the runtime; by default as many as this process has cores, or ``OMP_NUM_THREADS`` if less.
        name: What progress bars call it; by default the source's name.
        backend: A model that is open already and is timed in this process, with its own threads; its memory isn't
            measured, and ``source`` only names it.

    Raises:
        ConfigError: The runtime or precision is unknown, or a number is below 1.
    """

    source: Path
    runtime: str
    precision: str = "auto"
    size: int = 512
    batch: int = 1
    threads: int | None = None
    name: str = ""
    backend: Backend | None = None

    def __post_init__(self) -> None:
        check_runtime(self.runtime)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision '{self.precision}' can't be measured; use one of {', '.join(PRECISIONS)}")
        if self.size < 1 or self.batch < 1 or (self.threads is not None and self.threads < 1):
            raise ConfigError(
                f"size {self.size}, batch {self.batch}, threads {self.threads}: each must be at least 1 to be measured"
            )

    @property
    def cores(self) -> int:
        """Threads it runs with."""
        return self.threads or default_threads()

    @property
    def title(self) -> str:
        """Source, runtime and shape, for errors."""
        images = f"{self.batch} image{'s' if self.batch > 1 else ''} of {self.size} × {self.size}"
        return f"{self.source} on {runtime_title(self.runtime, self.precision)} ({images}, {threads_title(self.cores)})"

    @property
    def short_title(self) -> str:
        """Source and runtime, for a progress bar."""
        return f"{self.name or self.source.name} on {runtime_title(self.runtime, self.precision)}, batch {self.batch}"

    def to_dict(self) -> dict[str, Any]:
        """Return what a process of its own has to know, JSON-able."""
        told = {key: getattr(self, key) for key in ("runtime", "precision", "size", "batch")}
        return {**told, "source": str(self.source), "threads": self.cores}


@dataclass(frozen=True)
class Measurement:
    """What a job cost.

    Attributes:
        job: What was measured.
        latency_ms: "median" and "p95" in milliseconds of one batch, from raw pixels (N, H, W, bands) to class map
            (N, H, W), over "runs" timed runs; and "low" and "high", the smallest and largest median of a round, which
            tell how far the machine drifted. None when it failed.
        peak_memory_mb: Largest resident set, in 10^6 bytes, of a fresh process that opens the model and runs it once.
        baseline_memory_mb: The same process after importing the runtime and numpy.
        error: One sentence, when it failed.
        load: What other programs computed while it and those beside it were timed.
    """

    job: Job
    latency_ms: dict[str, float] | None = None
    peak_memory_mb: float | None = None
    baseline_memory_mb: float | None = None
    error: str | None = None
    load: Load = field(default_factory=Load)

    @property
    def throughput(self) -> float | None:
        """Megapixels per second (10^6, of one band or many alike) at the median."""
        images = self.images_per_second
        return None if images is None else images * self.job.size**2 / 1e6

    @property
    def images_per_second(self) -> float | None:
        """Images per second at the median."""
        return None if self.latency_ms is None else 1000 * self.job.batch / self.latency_ms["median"]

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured, JSON-able; what was measured *with* is the job's."""
        throughput, images = self.throughput, self.images_per_second
        return {
            "batch": self.job.batch,
            "threads": self.job.cores,
            "latency_ms": self.latency_ms,
            "throughput_mpixel_s": None if throughput is None else round(throughput, 3),
            "images_s": None if images is None else round(images, 3),
            "peak_memory_mb": self.peak_memory_mb,
            "baseline_memory_mb": self.baseline_memory_mb,
            "load": self.load.to_dict(),
            "error": self.error,
        }


def check_runtime(runtime: str) -> None:
    """Raise ``ConfigError`` for a runtime that nobody knows."""
    if runtime not in _RUNTIMES:
        raise UsageError(f"runtime '{runtime}' is unknown{nearest(runtime, RUNTIMES)}")


def runtime_module(runtime: str) -> str:
    """Return the name of the module that a runtime is imported as."""
    return _RUNTIMES[runtime][0]


def runtime_extra(runtime: str) -> str | None:
    """Return the extra of the package that brings a runtime; None for one that is always there."""
    return _RUNTIMES[runtime][1]


def runtime_title(runtime: str, precision: str = "auto") -> str:
    """Return a runtime as tables call it, such as "OpenVINO" or "OpenVINO fp32"."""
    words = {"32": " fp32", "bf16": " bf16"} if runtime in OWN_PRECISION else {}
    return _RUNTIMES[runtime][2] + words.get(precision, "")


def threads_title(threads: int) -> str:
    """Return "1 thread" or "2 threads"."""
    return f"{threads} thread{'s' if threads > 1 else ''}"
