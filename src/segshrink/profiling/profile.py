"""What a model costs here: parameters, operations, file size, latency and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from segshrink.errors import ModelError
from segshrink.files import scratch_folder
from segshrink.machine import available_cores, describe_machine
from segshrink.models import SegmentationModel, count_parameters, load_model
from segshrink.models.folder import WEIGHTS_FILE
from segshrink.prediction import Backend, TorchBackend
from segshrink.profiling.jobs import Job
from segshrink.profiling.workers import measure_memory

WARM_UP = 3


def profile_model(
    source: str | Path | SegmentationModel,
    *,
    size: int = 512,
    runs: int = 20,
    threads: int | None = None,
) -> dict[str, Any]:
    """Measure a model on this machine's CPU in fp32.

    Args:
        source: A model folder, a run folder, or a model.
        size: Side in pixels of the square image it is measured with.
        runs: Timed runs, at least 1, after a warm-up.
        threads: Threads of torch; by default the cores this process may use.

    Returns:
        JSON-able mapping: ``parameters``; ``macs`` (multiply-accumulates for one image); ``input`` (shape);
        ``file_bytes`` (the weights); ``latency_ms`` (``median``, ``p95``, ``runs``, ``threads``; raw pixels in, logits
        out, batch 1); ``peak_memory_mb`` (largest resident set, in 10^6 bytes, of a fresh process that loads the model
        and runs one image) with ``baseline_memory_mb`` (the same process when it has only imported torch); ``machine``.

    Raises:
        FileError: There is nothing at ``source``.
        ModelError: The model can't be loaded, or fails on an image of this size.
    """
    threads = threads or available_cores()
    with _model_folder(source) as folder:
        model = load_model(folder).eval().to(memory_format=torch.channels_last)
        description = model.description
        memory = measure_memory(Job(folder, "torch", precision="32", size=size, threads=threads))
        file_bytes = (folder / WEIGHTS_FILE).stat().st_size
    return {
        "parameters": count_parameters(model),
        "macs": count_macs(model, size=size),
        "input": [1, description.bands, size, size],
        "file_bytes": file_bytes,
        "latency_ms": {
            **measure_latency(model, size=size, runs=runs, threads=threads),
            "runs": runs,
            "threads": threads,
        },
        **memory,
        "machine": describe_machine(threads=threads),
    }


def profile_backend(
    backend: Backend, *, parameters: int | None, size: int = 512, runs: int = 20, threads: int | None = None
) -> dict[str, Any]:
    """Measure what isn't one model of ours, such as several teachers: only its latency can be measured.

    Args:
        backend: What runs it.
        parameters: How many it has.
        size: Side in pixels of the square image it is measured with.
        runs: Timed runs, at least 1, after a warm-up.
        threads: Threads of torch; by default the cores this process may use.

    Returns:
        ``parameters``, ``input``, ``latency_ms`` and ``machine``, as from ``profile_model``.
    """
    threads = threads or available_cores()
    latency = measure_latency(backend, size=size, runs=runs, threads=threads)
    return {
        "parameters": parameters,
        "input": [1, backend.bands, size, size],
        "latency_ms": {**latency, "runs": runs, "threads": threads},
        "machine": describe_machine(threads=threads),
    }


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


def measure_latency(model: SegmentationModel | Backend, *, size: int, runs: int, threads: int) -> dict[str, float]:
    """Return ``median`` and ``p95`` milliseconds of one image from raw pixels to logits, in fp32 where the model is."""
    if runs < 1:
        raise ModelError(f"a latency needs at least 1 run, found {runs}")
    backend = TorchBackend(model, precision="32") if isinstance(model, SegmentationModel) else model
    image = noise_image(size, bands=backend.bands)[np.newaxis]
    seconds = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(WARM_UP):
            backend.run(image)
        for _ in range(runs):
            start = time.perf_counter()
            backend.run(image)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    milliseconds = 1000 * np.array(seconds)
    return {
        "median": round(float(np.median(milliseconds)), 3),
        "p95": round(float(np.percentile(milliseconds, 95)), 3),
    }


def noise_image(size: int, *, bands: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the same (size, size, bands) uint8 noise at every call."""
    return np.random.default_rng(0).integers(0, 256, (size, size, bands), dtype=np.uint8)


@contextmanager
def _model_folder(source: str | Path | SegmentationModel) -> Iterator[Path]:
    """Give the folder that holds config.json and weights; a model in memory is saved to a temporary one."""
    if isinstance(source, SegmentationModel):
        with scratch_folder() as scratch:
            folder = scratch / "model"
            source.save(folder)
            yield folder
        return
    folder = Path(source)
    yield folder / "model" if (folder / "model").is_dir() else folder
