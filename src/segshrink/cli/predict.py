"""``segshrink predict``: whole scenes to maps, polygons and pictures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Blending(StrEnum):
    """How overlapping tiles become one map."""

    CENTER = "center"
    COSINE = "cosine"


class Vectors(StrEnum):
    """Kinds of files of polygons."""

    GPKG = "gpkg"
    GEOJSON = "geojson"


def predict(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Run or model folder, .onnx, .xml or .tflite file.", show_default=False),
    ],
    scenes: Annotated[
        list[str],
        typer.Argument(metavar="SCENE...", help="Images, folders, 'wildcards' or URLs.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="A folder; for one scene also a .tif or .png file.", show_default=False),
    ],
    tile: Annotated[int | None, typer.Option(help="Side of a tile in pixels; by default about 512.", min=16)] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Pixels that neighbouring tiles share; by default 4 strides, at least 64.", min=0)
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Tiles run at once.", min=1)] = None,
    threads: Annotated[int | None, typer.Option(help="Cores to use; by default all.", min=1)] = None,
    runtime: Annotated[
        str | None, typer.Option(help="onnxruntime, openvino, litert, torch; by default what suits MODEL.")
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Bands by number or name, in the model's order: 3,2,1 or red,green,nir.")
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(metavar="LOW:HIGH", help="Pixel values that become the ends of the model's range."),
    ] = None,
    nodata: Annotated[
        float | None,
        typer.Option(help="Pixel value that means no data, for scenes that don't say so.", show_default=False),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(help="Metres a pixel to predict at, or 'native'; by default the model's, where it is known."),
    ] = None,
    blend: Annotated[
        Blending | None,
        typer.Option(help="center: each pixel from the tile it is central in (quick). cosine: weighted mean."),
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write NAME.probabilities.tif.")] = False,
    confidence: Annotated[bool, typer.Option("--confidence", help="Write NAME.confidence.tif.")] = False,
    vectors: Annotated[Vectors | None, typer.Option(help="Write polygons: NAME.gpkg or NAME.geojson.")] = None,
    min_area: Annotated[float, typer.Option(help="Drop smaller polygons (square metres).", min=0)] = 0.0,
    simplify: Annotated[float, typer.Option(help="Simplification tolerance for polygons, in metres.", min=0)] = 0.0,
    overlay: Annotated[bool, typer.Option(help="Write NAME.overlay.jpg, the classes over the scene.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Segment scenes of any size.

    NAME.tif is a Cloud-Optimized GeoTIFF of class numbers on the scene's grid, or where the model knows its resolution
    (or --resolution says one) in pixels of that size; plain pictures give a NAME.png with a palette. An interrupted run
    goes on where it stopped when it is started again; several may share a folder. An .onnx file needs no torch.
    """
    from segshrink.cli._predict import options_from, predict_all

    options = options_from(
        tile=tile,
        overlap=overlap,
        batch=batch,
        threads=threads,
        runtime=runtime,
        bands=bands,
        scale=scale,
        nodata=nodata,
        resolution=resolution,
        blend=None if blend is None else blend.value,
        probabilities=probabilities,
        confidence=confidence,
        vectors=None if vectors is None else vectors.value,
        min_area=min_area,
        simplify=simplify,
        overlay=overlay,
        overwrite=overwrite,
    )
    predict_all(model, scenes, out, options)
