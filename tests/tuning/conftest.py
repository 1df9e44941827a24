"""Studies whose trials train nothing: a recipe, its plan, and a worker that can be killed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from segshrink.config import OpenValue, Recipe
from segshrink.tuning.study import Plan, Settings

DATA = {
    "name": "fields",
    "images": "*.png",
    "classes": [{"name": "field", "color": "#008000"}, {"name": "road", "color": "#808080"}],
    "split": {"random": 0.2},
}
RATE = "student.training.learning_rate"


def make_plan(out: Path, storage: str | Path, *, name: str = "fields", **settings: object) -> Plan:
    """A plan of both roles with one open value each."""
    recipe = Recipe.model_validate({"name": name, "seed": 5, "data": DATA, "student": {"model": {"id": "unet"}}})
    space = {RATE: OpenValue(log=(1e-4, 1e-1))}
    return Plan(recipe, {"student": space, "control": space}, Settings(**settings), str(storage), out)


@pytest.fixture
def postgres() -> str:
    """URL of the database that .ci/run starts."""
    url = os.environ.get("SEGSHRINK_POSTGRES")
    if not url:
        pytest.skip("no PostgreSQL: .ci/run starts one and gives its URL as SEGSHRINK_POSTGRES")
    return url


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where several workers keep a study."""
    if request.param == "journal":
        return str(tmp_path / "journal.log")
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def name() -> str:
    """A study's name that no earlier test has left in a database."""
    return uuid.uuid4().hex
