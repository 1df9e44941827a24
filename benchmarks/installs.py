"""Claim: what an installation takes on disk, with all it needs: without torch, for training, and with every extra.

    python benchmarks/installs.py --uv .venv-uv/bin/uv      # minutes where packages are not cached; result beside it

Each is installed into a fresh environment, whose files' sizes are summed; beside it, what of it is for GPUs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from processor_results import RESULTS
from segshrink import __version__
from segshrink.files import write_text

ROOT = Path(__file__).resolve().parents[1]
INSTALLS = {"segshrink": "", "segshrink[train]": "[train]", "segshrink[all]": "[all]"}
FOR_GPUS = ("nvidia", "triton")


def megabytes(folder: Path) -> float:
    """Return the sum of the sizes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def main() -> None:
    """Install, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uv", required=True, help="the program uv")
    uv = str(Path(parser.parse_args().uv).resolve())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    rows = []
    for name, extra in INSTALLS.items():
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "venv"
            subprocess.run([uv, "venv", "-q", "--python", python, str(place)], check=True)
            wanted = f"segshrink{extra} @ {ROOT.as_uri()}"
            subprocess.run([uv, "pip", "install", "-q", "--python", str(place / "bin" / "python"), wanted], check=True)
            packages = place / "lib" / f"python{python}" / "site-packages"
            rows.append(f"| {name} | {megabytes(place):,.0f} | {sum(megabytes(packages / p) for p in FOR_GPUS):,.0f} |")
    head = [
        "# What an installation takes",
        "",
        f"Written by `benchmarks/installs.py`, {datetime.now(UTC).isoformat(timespec='seconds')}, segshrink "
        f"{__version__}, Python {python}, Linux, torch from PyPI.",
        "",
        "| installed | MB | of which for GPUs |",
        "| --- | ---: | ---: |",
    ]
    page = "\n".join([*head, *rows, ""])
    write_text(RESULTS / "installs.md", page)
    print(page)


if __name__ == "__main__":
    main()
