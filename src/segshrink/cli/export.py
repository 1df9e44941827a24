"""``segshrink export``: a model as files for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._options import Overwrite, Trust, words


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run folder, model folder or Keras file; for web also .onnx.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="File to write (.onnx, .xml, .tflite or .html), or a stem that suffixes are added to."
        ),
    ],
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="onnx, openvino (.xml and .bin), qgis (.onnx for the plugin Deepness), tflite or web (.html); several "
            "with commas.",
        ),
    ] = None,
    output: Annotated[str, typer.Option(help="What a file gives: logits, probabilities, classes.")] = "logits,classes",
    half: Annotated[bool, typer.Option("--half", help="Store OpenVINO's weights in 16 bits.")] = False,
    card: Annotated[
        bool, typer.Option("--card/--no-card", help="Write a model card (.md) and a STAC item (.stac.json), too.")
    ] = True,
    trust: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a model as a file for ONNX Runtime, OpenVINO, LiteRT, QGIS or any browser.

    Raw pixels of any size in; normalization, padding and the choice of the class are inside.
    A .tflite file holds a tile of 512 pixels instead, and gives logits alone.
    Each file is compared with PyTorch at four sizes before it gets its name.

    --format web writes the model as one HTML page, to open by double click: it segments images and GeoTIFFs
    without a network, and sends them nowhere. MODEL may be an .onnx file then, such as one of quantize.
    """
    from segshrink.cli._console import out_console
    from segshrink.cli._trust import opened_if_trusted, trusting
    from segshrink.export.export import export as export_files

    names, outputs = None if formats is None else words(formats), words(output)
    source = opened_if_trusted(model, trust=trust)
    with trusting(model, trust=trust):
        result = export_files(source, out, formats=names, outputs=outputs, half=half, card=card, overwrite=overwrite)
    for path in result.paths:
        out_console().print(f"{path} ({path.stat().st_size / 1e6:.3f} MB)")
