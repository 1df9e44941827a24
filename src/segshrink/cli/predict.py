"""``segshrink predict``: whole scenes to maps, polygons and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segshrink.cli._options import Trust
from segshrink.errors import UsageError
from segshrink.machine import LARGEST_THREADS

if TYPE_CHECKING:
    from segshrink.prediction.scenes import Estimate, LeftOut, SceneResult


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
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="A folder; for one scene also a .tif, .png or .mp4 file.", show_default=False),
    ],
    scenes: Annotated[
        list[str] | None,
        typer.Argument(metavar="SCENE...", help="Images, videos, folders, 'wildcards', URLs.", show_default=False),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="A list of scenes, one a line.", show_default=False)
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Predict this share only.", show_default=False)
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only tell how long it will take, from a few scenes.")] = False,
    watch: Annotated[
        Path | None,
        typer.Option(
            "--watch", metavar="FOLDER", help="Predict images as they come into a folder.", show_default=False
        ),
    ] = None,
    interval: Annotated[float, typer.Option(help="With --watch: seconds between two looks.", min=0.05)] = 2.0,
    average: Annotated[
        list[Path] | None,
        typer.Option("--average", help="Another model: the mean of all decides. Any number.", show_default=False),
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Side of a tile in pixels; by default about 512.", min=16)] = None,
    overlap: Annotated[
        int | None, typer.Option(help="Pixels that neighboring tiles share; by default 4 strides, at least 64.", min=0)
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Tiles run at once.", min=1)] = None,
    threads: Annotated[
        int | None, typer.Option(help="Cores to use; by default all.", min=1, max=LARGEST_THREADS)
    ] = None,
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
        typer.Option(help="Meters a pixel to predict at, or 'native'; by default the model's, where it is known."),
    ] = None,
    blend: Annotated[
        Blending | None,
        typer.Option(help="center: each pixel from the tile it is central in (quick). cosine: weighted mean."),
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write NAME.probabilities.tif.")] = False,
    confidence: Annotated[bool, typer.Option("--confidence", help="Write NAME.confidence.tif.")] = False,
    vectors: Annotated[Vectors | None, typer.Option(help="Write polygons: NAME.gpkg or NAME.geojson.")] = None,
    min_area: Annotated[float, typer.Option(help="Drop smaller polygons (square meters).", min=0)] = 0.0,
    simplify: Annotated[float, typer.Option(help="Simplification tolerance for polygons, in meters.", min=0)] = 0.0,
    overlay: Annotated[bool, typer.Option(help="Write NAME.overlay.jpg, the classes over the scene.")] = True,
    trust: Trust = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Segment scenes of any size.

    NAME.tif is a Cloud-Optimized GeoTIFF of class numbers on the scene's grid, or where the model knows its resolution
    (or --resolution says one) in pixels of that size; plain pictures give a NAME.png with a palette, videos a NAME.mp4
    with the classes over it. An interrupted run goes on where it stopped when it is started again; several may share a
    folder. An .onnx file needs no torch.
    """
    from segshrink.cli._console import progress_bar, tell
    from segshrink.cli._trust import trusting
    from segshrink.files import writing
    from segshrink.model_file import runs_in_torch
    from segshrink.prediction.scenes import (
        SceneOptions,
        Shard,
        estimate_scenes,
        predict_scenes,
        read_manifest,
        watch_scenes,
    )

    models = [model, *(average or ())]
    options = SceneOptions(
        tile=tile,
        overlap=overlap,
        batch=batch,
        threads=_free_threads() if threads is None and any(map(runs_in_torch, models)) else threads,
        runtime=runtime,
        bands=None if bands is None else [band.strip() for band in bands.split(",") if band.strip()],
        scale=None if scale is None else _scale(scale),
        nodata=nodata,
        resolution=_resolution(resolution),
        blend=None if blend is None else blend.value,
        probabilities=probabilities,
        confidence=confidence,
        vectors=None if vectors is None else vectors.value,
        min_area=min_area,
        simplify=simplify,
        overlay=overlay,
        overwrite=overwrite,
    )
    sources = [*(scenes or ()), *(read_manifest(manifest) if manifest else ())]
    share = None if shard is None else Shard.parse(shard)
    if watch is not None:
        if sources or plan:
            raise UsageError(f"--watch {watch} names all that is predicted; leave scenes, --manifest and --plan out")
        with writing(out), trusting(*models, trust=trust):
            _watch(watch_scenes(models, watch, out, options, interval=interval, shard=share))
        return
    if plan:
        with trusting(*models, trust=trust):
            _print_plan(estimate_scenes(models, sources, out, options, shard=share))
        return
    with progress_bar("predict", unit="Mpixel") as advance, writing(out), trusting(*models, trust=trust):

        def progress(done: int, total: int, name: str) -> None:
            advance(done / 1e6, total / 1e6, name)

        results = predict_scenes(models, sources, out, options, shard=share, progress=progress)
    skipped = sum(result.skipped for result in results)
    if skipped:
        tell(
            f"{skipped} scene{'s were' if skipped > 1 else ' was'} predicted before with this model and these options; "
            "--overwrite predicts again"
        )
    for result in results:
        _print_files(result)


def _watch(results: Iterator[SceneResult | LeftOut]) -> None:
    """Tell what becomes of the images of a watched folder, as long as it is watched."""
    from segshrink.cli._console import tell
    from segshrink.prediction.scenes import SceneResult

    for result in results:
        if isinstance(result, SceneResult):
            _print_files(result)
        else:
            tell(f"left out: {result.reason}")


def _print_files(result: SceneResult) -> None:
    from segshrink.cli._console import out_console, tell
    from segshrink.formatting import printable

    if result.misuse is not None:
        tell(f"{result.source}: {result.misuse}")
    if not result.skipped:
        out_console().print("\n".join(printable(str(path)) for path in result.files.paths), markup=False)


def _print_plan(estimate: Estimate) -> None:
    from segshrink.cli._console import out_console
    from segshrink.formatting import duration, size

    out_console().print(
        f"{estimate.scenes} scenes, {estimate.pixels / 1e6:,.1f} megapixels: about {duration(estimate.seconds)} and "
        f"{size(estimate.bytes)} of results (judged by {estimate.tried} of them, on this machine)",
        markup=False,
    )


def _scale(text: str) -> tuple[float, float]:
    low, _, high = text.replace(",", ":").partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise UsageError(f"--scale takes two pixel values as LOW:HIGH, such as 0:3000, found '{text}'") from error


def _resolution(text: str | None) -> float | Literal["model", "native"]:
    if text is None:
        return "model"
    if text == "native":
        return "native"
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--resolution takes meters a pixel, such as 0.5, or 'native', found '{text}'") from error


def _free_threads() -> int:
    """How many cores torch should take: those that are free, and no more than it was allowed."""
    import torch

    from segshrink.training.hardware import free_threads

    return min(torch.get_num_threads(), free_threads())
