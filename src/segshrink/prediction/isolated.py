"""Runs an exported file once in a process of its own, whose death this one survives: a signal can't be caught.

As a program, ``python -P -m segshrink.prediction.isolated JOB`` with a job as JSON, it opens the file, runs it and ends
with status 0, or with the reason as its last line on standard error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segshrink.errors import ModelError, first_line
from segshrink.machine import last_words

# Numbers, heights and widths of images: a tile, and what differs from it in each respect, smaller and odd.
SIZES = ((1, 256, 256), (2, 300, 200), (1, 17, 23))
PATIENCE = 900.0  # seconds that opening and running may take together


def check_isolated(
    path: Path,
    *,
    runtime: str,
    precision: str = "auto",
    threads: int | None = None,
    shapes: Sequence[tuple[int, ...]] | None = None,
) -> None:
    """Open a file and run it at several sizes in a process of its own.

    Args:
        path: A file that ``open_backend`` takes; with ``shapes`` any graph that OpenVINO reads.
        runtime: "onnxruntime", "openvino" or "litert".
        precision: As in ``open_backend``.
        threads: As in ``open_backend``.
        shapes: What a graph without a description of ours is given; by default images of ``SIZES``.

    Raises:
        ModelError: It can't be opened or run so, or the process died or didn't answer; the sentence names the file,
            the runtime and the reason.
    """
    job = {"path": str(path), "runtime": runtime, "precision": precision, "threads": threads, "shapes": shapes}
    # -P: a file in the working folder must not stand in for one of Python's own modules.
    command = [sys.executable, "-P", "-m", "segshrink.prediction.isolated", json.dumps(job)]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=PATIENCE
        )
        reason = last_words(ended.returncode, ended.stderr) if ended.returncode else None
    except subprocess.TimeoutExpired:
        reason = f"it did not answer within {PATIENCE:g} s"
    except OSError as error:
        reason = f"no process could be started ({error})"
    if reason is not None:
        raise ModelError(f"{path.name} can't be used with {runtime} on this machine: {reason}")


def main(arguments: list[str]) -> int:
    """Do one job; return the exit status."""
    job = json.loads(arguments[0])
    try:
        _run(Path(job["path"]), job["shapes"], job["runtime"], precision=job["precision"], threads=job["threads"])
    except Exception as error:  # whatever a runtime raises is what the parent asks about
        text = first_line(error)
        print(text if isinstance(error, ModelError) else f"{type(error).__name__}: {text}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _run(path: Path, shapes: Sequence[tuple[int, ...]] | None, runtime: str, **settings: Any) -> None:
    random = np.random.default_rng(0)
    if shapes is not None:
        from segshrink.prediction.runtimes.openvino import OpenVinoNetwork

        network = OpenVinoNetwork(path, **settings)
        for shape in shapes:
            for output in range(len(network.outputs)):
                network.run(random.integers(0, 256, shape).astype(network.images.dtype), output)
        return
    from segshrink.prediction import open_backend

    backend = open_backend(path, runtime=runtime, **settings)
    run = backend.classify if getattr(backend, "outputs", ()) == ("classes",) else backend.run
    for size in SIZES:
        run(random.integers(0, 256, (*size, backend.bands), dtype=np.uint8))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
