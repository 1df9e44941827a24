"""What models cost here, as ``profile.json`` keeps it: parameters, operations, file size, latency and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import torch

from segshrink.errors import ModelError
from segshrink.files import scratch_folder
from segshrink.machine import default_threads, describe_machine
from segshrink.model_file import ModelFile
from segshrink.models import SegmentationModel, count_parameters, load_model
from segshrink.prediction import Backend
from segshrink.profiling.latency import Job, Progress, measure
from segshrink.profiling.parameters_and_macs import count_macs
from segshrink.profiling.stages import count_stages

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
        By name a JSON-able mapping: ``parameters``; ``macs`` (multiply-accumulates for one image) and
        ``stages`` (the same by stage); ``input`` (shape);
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
    with scratch_folder() as scratch:
        for number, (name, source) in enumerate(sources.items()):
            backend, folder = None, Path(name)
            if isinstance(source, ForeignModel):
                backend = source.backend
                counts.append({"parameters": source.parameters, "input": [1, backend.bands, size, size]})
            else:
                folder = _model_folder(source, scratch / str(number))
                counts.append(_count(folder, size=size))
            jobs.append(Job(folder, "torch", "32", size=size, threads=threads, name=name, backend=backend))
        measured = measure(jobs, runs=runs, rounds=max(1, min(ROUNDS, runs)), seconds=SECONDS, progress=progress)
    session = datetime.now(UTC).isoformat()
    profiles = {}
    for name, counted, measurement in zip(sources, counts, measured, strict=True):
        if measurement.latency_ms is None:
            raise ModelError(measurement.error or f"{name} can't be measured")
        memory = {key: getattr(measurement, key) for key in ("peak_memory_mb", "baseline_memory_mb")}
        profiles[name] = {
            **counted,
            "latency_ms": {**measurement.latency_ms, "threads": threads},
            **(memory if measurement.peak_memory_mb is not None else {}),
            "load": measurement.load.to_dict(),
            "session": session,
            "turns": list(sources),
            "machine": describe_machine(threads=threads),
        }
    return profiles


def _count(folder: Path, *, size: int) -> dict[str, Any]:
    model = load_model(folder).eval().to(memory_format=torch.channels_last)
    return {
        "parameters": count_parameters(model),
        "macs": count_macs(model, size=size),
        "stages": [stage.to_json() for stage in count_stages(model, size=size)],
        "input": [1, model.description.bands, size, size],
        "file_bytes": ModelFile(folder).size_bytes,
    }


def _model_folder(source: str | Path | SegmentationModel, scratch: Path) -> Path:
    """Return the folder that holds config.json and weights; a model in memory is saved to ``scratch`` first."""
    if not isinstance(source, SegmentationModel):
        return ModelFile.find(source).path
    source.save(scratch)
    return scratch
