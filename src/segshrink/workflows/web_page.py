"""The page for browsers that a distillation and a compression leave beside their report."""

from __future__ import annotations

import logging
from pathlib import Path

from segshrink.errors import first_line
from segshrink.export.web import export_web
from segshrink.model_file import ModelFile

_LOGGER = logging.getLogger(__name__)


def write_web_page(model: Path, page: Path) -> None:
    """Write a model as a page, unless the one that stands there is newer; what goes wrong is said, and stops nothing.

    Args:
        model: Run folder or ``.onnx`` file.
        page: The ``.html`` file.
    """
    try:
        weights = ModelFile.find(model).parts[-1]
        if not page.is_file() or page.stat().st_mtime < weights.stat().st_mtime:
            export_web(model, page, overwrite=False)
    except Exception as error:  # an exporter raises what the network's operators raise
        _LOGGER.warning("no %s for browsers was written: %s", page.name, first_line(error))
