"""What models cost here: parameters, operations, file size, latency and memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode

from segshrink.errors import ModelError
from segshrink.files import scratch_folder
from segshrink.machine import default_threads, describe_machine
from segshrink.model_file import MODEL_FOLDER_NAME, ModelFile
from segshrink.models import SegmentationModel, count_parameters, load_model
from segshrink.prediction import Backend
from segshrink.profiling.jobs import Job
from segshrink.profiling.latency import Progress, measure

ROUNDS = 5
# What the timed runs of one model may take.
SECONDS = 20.0


@dataclass(frozen=True)
class ForeignModel:
    """What isn't one model of ours, such as several teachers: only its latency can be measured.

    Attributes:
        backend: What runs it.
        parameters: How many it has.
    """

    backend: Backend
    parameters: int | None


Source: TypeAlias = str | Path | SegmentationModel | ForeignModel


def profile_model(
    source: str | Path | SegmentationModel, *, size: int = 512, runs: int = 20, threads: int | None = None
) -> dict[str, Any]:
    """Measure a model on this machine's CPU in fp32; see ``profile_models``."""
    return profile_models({"model": source}, size=size, runs=runs, threads=threads)["model"]


def profile_models(
    sources: Mapping[str, Source],
    *,
    size: int = 512,
    runs: int = 20,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure models in turns on this machine's CPU in fp32, so that their latencies can be compared.

    Args:
        sources: By name: model folders, run folders, or models.
        size: Side in pixels of the square image they are measured with.
        runs: Timed runs of each, at least 1, after a warm-up; fewer of a slow model, which gets 20 seconds.
        threads: Threads of torch; by default the cores this process may use, or ``OMP_NUM_THREADS`` if less.
        progress: Called with (steps done, steps in all, what is being done).

    Returns:
        By name a JSON-able mapping: ``parameters``; ``macs`` (multiply-accumulates for one image); ``input`` (shape);
        ``file_bytes`` (the weights); ``latency_ms`` (``median``, ``p95``, ``low``, ``high``, ``runs``, ``threads``; raw
        pixels in, class map out, batch 1); ``peak_memory_mb`` (largest resident set, in 10^6 bytes, of a fresh process
        that loads the model and runs one image) with ``baseline_memory_mb`` (the same process when it has only imported
        torch); ``load`` (what other programs computed meanwhile, as ``Load.to_dict`` gives it); ``session``, equal for
        models that were timed in turns, and ``turns``, their names; ``machine``. A foreign model has no ``macs``,
        ``file_bytes`` and memory.

    Raises:
        FileError: There is nothing at a source.
        ModelError: A model can't be loaded, or fails on an image of this size.
        ConfigError: ``runs`` is less than 1.
    """
    threads = threads or default_threads()
    counts, jobs = [], []
    with ExitStack() as stack:
        for name, source in sources.items():
            backend = source.backend if isinstance(source, ForeignModel) else None
            if isinstance(source, ForeignModel):
                folder = Path(name)
                counts.append({"parameters": source.parameters, "input": [1, source.backend.bands, size, size]})
            else:
                folder = stack.enter_context(_model_folder(source))
                counts.append(_count(folder, size=size))
            jobs.append(Job(folder, "torch", "32", size=size, threads=threads, name=name, backend=backend))
        measured = measure(jobs, runs=runs, rounds=max(1, min(ROUNDS, runs)), seconds=SECONDS, progress=progress)
    session = datetime.now(UTC).isoformat()
    profiles = {}
    for name, counted, one in zip(sources, counts, measured, strict=True):
        if one.latency_ms is None:
            raise ModelError(one.error or f"{name} can't be measured")
        memory = {"peak_memory_mb": one.peak_memory_mb, "baseline_memory_mb": one.baseline_memory_mb}
        profiles[name] = {
            **counted,
            "latency_ms": {**one.latency_ms, "threads": threads},
            **(memory if one.peak_memory_mb is not None else {}),
            "load": one.load.to_dict(),
            "session": session,
            "turns": list(sources),
            "machine": describe_machine(threads=threads),
        }
    return profiles


def count_macs(model: SegmentationModel, *, size: int) -> int:
    """Return the multiply-accumulates of one image of ``size`` x ``size`` pixels (half of torch's FLOP count).

    Convolutions, matrix products and attention count; element-wise operations don't, as is usual in the field.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, model.description.bands, size, size, dtype=torch.uint8, device=device)
    counter = FlopCounterMode(display=False)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), counter:
            model(image)
    finally:
        model.train(was_training)
    return int(counter.get_total_flops()) // 2


def _count(folder: Path, *, size: int) -> dict[str, Any]:
    model = load_model(folder).eval().to(memory_format=torch.channels_last)
    return {
        "parameters": count_parameters(model),
        "macs": count_macs(model, size=size),
        "input": [1, model.description.bands, size, size],
        "file_bytes": ModelFile(folder).size_bytes,
    }


@contextmanager
def _model_folder(source: str | Path | SegmentationModel) -> Iterator[Path]:
    """Give the folder that holds config.json and weights; a model in memory is saved to a temporary one."""
    if isinstance(source, SegmentationModel):
        with scratch_folder() as scratch:
            folder = scratch / MODEL_FOLDER_NAME
            source.save(folder)
            yield folder
        return
    yield ModelFile.find(source).path
