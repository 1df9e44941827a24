"""Keras files that may run code, opened before a verb gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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
