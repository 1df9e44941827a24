"""Where the data sets of configs/data come from: the same in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from segshrink.config import load_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_readme_says_where_it_comes_from(path: Path) -> None:
    origin = load_dataset(path).origin
    assert origin is not None
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| `{path.name}` |")]
    assert f"({origin.address}) | {origin.license} |" in row
    assert f"`{origin.command}`" in row or origin.command is None
