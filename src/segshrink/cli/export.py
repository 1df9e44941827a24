"""``segshrink export``: a model as one file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._options import Model


def export(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, FILE.onnx.", show_default=False)],
) -> None:
    """Write a model as an ONNX file.

    Raw pixels of any size in, logits out; checked against PyTorch before the file gets its name.
    """
    from segshrink.cli._console import out_console
    from segshrink.cli._errors import writing
    from segshrink.export import export_onnx
    from segshrink.models import load_model

    with writing(out):
        path = export_onnx(load_model(model), out)
    out_console().print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", markup=False)
