"""The page for browsers that a distillation and a compression leave beside their report."""

from __future__ import annotations

import logging
from pathlib import Path

from segshrink.errors import first_line
from segshrink.export.web import export_web, is_page_of

_LOGGER = logging.getLogger(__name__)


def write_web_page(model: Path, page: Path) -> None:
    """Write a model as a page, unless it stands there already; what goes wrong is said, and stops nothing.

    Args:
        model: Run folder or ``.onnx`` file.
        page: The ``.html`` file.
    """
    try:
        if not is_page_of(page, model):
            export_web(model, page, overwrite=False)
    except Exception as error:  # an exporter raises what the network's operators raise
        _LOGGER.warning("no %s for browsers was written: %s", page.name, first_line(error))
