"""Models that name code of their owners, opened where the user trusts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segshrink.user_code import trusted_functions


@contextmanager
def trusting(*models: str | Path, trust: bool) -> Iterator[None]:
    """Let the functions make networks that model folders name, where these are trusted.

    Raises:
        FileError: A folder holds no model, or can't be read.
        ModelError: A folder is damaged.
    """
    names: list[str] = []
    if trust and any(Path(model).is_dir() for model in models):  # files need no torch
        from segshrink.models.folder import functions_of

        names = functions_of(*models)
    with trusted_functions(*names):
        yield


def opened_if_trusted(model: str | Path, *, trust: bool) -> Any:
    """Open a Keras file that is trusted; leave any other model to be opened by its path.

    Raises:
        FileError: There is no such file.
        ModelError: It is damaged, or no segmentation network.
    """
    from segshrink.model_file import keras_path

    if not trust or keras_path(model) is None:
        return model
    from segshrink.models import load_model

    return load_model(model, trust=True)
