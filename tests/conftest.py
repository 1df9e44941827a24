"""Shared fixtures: where real data, oracles and weights are, and one thread for torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _existing(path: Path, what: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"{what} not found at {path}")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets (dubai/, VOCdevkit/, geotiff/)."""
    return _existing(Path(os.environ.get("SEGSHRINK_DATA", SHARED / "data")), "real data ($SEGSHRINK_DATA)")


@pytest.fixture(scope="session")
def shared_oracles() -> Path:
    """Folder of numeric oracles."""
    return _existing(SHARED / "oracles", "numeric oracles")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """Folder of pretrained weights."""
    return _existing(SHARED / "weights", "pretrained weights")


@pytest.fixture(autouse=True, scope="session")
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded images of tests out of the user's cache."""
    os.environ["SEGSHRINK_CACHE"] = str(tmp_path_factory.mktemp("cache"))
