"""Measure the memory of one prediction: ``python -P memory.py FOLDER SIZE THREADS``.

A program of its own, because the largest resident set of a process can only grow. It is run as a file, because as a
module it would import its package, and so torch and all networks, before the baseline is taken.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def peak_memory_mb() -> float:
    """Return the largest resident set this process had so far, in 10^6 bytes."""
    try:
        # Not getrusage: on Linux a program started by another inherits the largest resident set of its parent.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return round(kibibytes * 1024 / 1e6, 1)
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def main(arguments: list[str]) -> None:
    """Write ``{"peak_memory_mb", "baseline_memory_mb"}`` as JSON to standard output."""
    folder, size, threads = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    import torch

    torch.set_num_threads(threads)
    baseline = peak_memory_mb()
    from segshrink.models import load_model
    from segshrink.prediction import TorchBackend

    model = load_model(folder).eval().to(memory_format=torch.channels_last)
    image = torch.randint(0, 256, (1, size, size, model.description.bands), dtype=torch.uint8).numpy()
    TorchBackend(model, precision="32").run(image)
    sys.stdout.write(json.dumps({"peak_memory_mb": peak_memory_mb(), "baseline_memory_mb": baseline}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
