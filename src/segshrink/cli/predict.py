"""``segshrink predict``: segments plain images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Run folder, model folder or .onnx file.", show_default=False)
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images to segment.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="A .png file (for one image) or a folder.", show_default=False),
    ],
    tile: Annotated[int, typer.Option("--tile", help="Side of a tile in pixels.", min=16)] = 512,
    overlap: Annotated[int, typer.Option("--overlap", help="Pixels that neighbouring tiles share.", min=0)] = 64,
) -> None:
    """Segment images.

    NAME.png holds class numbers with a palette, NAME.overlay.jpg shows the classes over the image.
    An .onnx file needs no torch.
    """
    from segshrink.cli._predict import open_predictor, plan_files, segment

    planned = plan_files(images, out)
    predictor = open_predictor(model, tile=tile, overlap=overlap)
    from segshrink.cli._console import out_console, progress_bar
    from segshrink.cli._errors import writing

    with progress_bar("predict") as advance, writing(out):
        for number, files in enumerate(planned, start=1):
            segment(predictor, files)
            advance(number, len(planned), files.image.name)
    console = out_console()
    for files in planned:
        console.print(f"{files.index}\n{files.overlay}", markup=False)
