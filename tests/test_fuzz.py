"""Damaged files of every kind get one sentence; ``benchmarks/fuzz.py`` tries the same for as long as one likes."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz() -> Any:
    """The benchmark's module."""
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # where its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def readers(fuzz: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = fuzz.targets(tmp_path_factory.mktemp("fuzz"))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@pytest.mark.parametrize("number", range(8))
def test_a_damaged_file_gets_one_sentence(fuzz: Any, readers: dict[str, Any], place: Path, number: int) -> None:
    name, target = list(readers.items())[number]
    assert fuzz.fault_of(target, target.content, place / f"sound{target.suffix}") is None, name
    target.read(place / f"sound{target.suffix}")

    @settings(max_examples=60, derandomize=True, database=None)
    @given(st.integers(0, 2**64))
    def tried(seed: int) -> None:
        content = fuzz.mutated(target.content, random.Random(seed))
        assert fuzz.fault_of(target, content, place / f"fuzzed{target.suffix}") is None, (name, content)

    tried()


def test_there_are_as_many_readers(readers: dict[str, Any]) -> None:
    assert len(readers) == 8
