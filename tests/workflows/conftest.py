from __future__ import annotations

import pytest


@pytest.fixture
def _without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``init`` leave out the measuring of training steps, which takes torch and seconds."""
    monkeypatch.setattr("segshrink.workflows.starting_recipe.find_spec", lambda name: None)
