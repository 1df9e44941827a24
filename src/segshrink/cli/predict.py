"""``segshrink predict``: whole scenes to maps, polygons and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segshrink.cli._options import Trust, words
from segshrink.errors import UsageError
from segshrink.machine import LARGEST_THREADS

if TYPE_CHECKING:
    from segshrink.prediction.scenes import Estimate, LeftOut, SceneOptions, SceneResult, Shard


_Scenes = Annotated[
    list[str] | None, typer.Argument(metavar="SCENE...", help="Images, videos, folders, 'wildcards', URLs.")
]
_Watch = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Predict images as they come into a folder.")]
_Average = Annotated[list[Path] | None, typer.Option(help="Another model: the mean of all decides. Any number.")]
_Overlap = Annotated[
    int | None, typer.Option(help="Pixels that neighboring tiles share; by default 4 strides, at least 64.", min=0)
]
_Threads = Annotated[int | None, typer.Option(help="Cores to use; by default all.", min=1, max=LARGEST_THREADS)]
_Runtime = Annotated[
    str | None, typer.Option(help="onnxruntime, openvino, litert, torch; by default what suits MODEL.")
]
_Bands = Annotated[
    str | None, typer.Option(help="Bands by number or name, in the model's order: 3,2,1 or red,green,nir.")
]
_Scale = Annotated[
    str | None,
    typer.Option(metavar="LOW:HIGH", help="Pixel values that become the ends of the model's range."),
]
_Nodata = Annotated[float | None, typer.Option(help="Pixel value that means no data, for scenes that don't say so.")]
_Resolution = Annotated[
    str | None,
    typer.Option(help="Meters a pixel to predict at, or 'native'; by default the model's, where it is known."),
]
_Blend = Annotated[
    Literal["center", "cosine"] | None,
    typer.Option(help="center: each pixel from the tile it is central in (quick). cosine: weighted mean."),
]
_Vectors = Annotated[Literal["gpkg", "geojson"] | None, typer.Option(help="Write polygons: NAME.gpkg or NAME.geojson.")]


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run or model folder, .onnx, .xml or .tflite file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder; for one scene also a .tif, .png or .mp4 file.")],
    scenes: _Scenes = None,
    manifest: Annotated[Path | None, typer.Option(help="A list of scenes, one a line.")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Predict this share only.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only tell how long it will take, from a few scenes.")] = False,
    watch: _Watch = None,
    interval: Annotated[float, typer.Option(help="With --watch: seconds between two looks.", min=0.05)] = 2.0,
    average: _Average = None,
    tile: Annotated[int | None, typer.Option(help="Side of a tile in pixels; by default about 512.", min=16)] = None,
    overlap: _Overlap = None,
    batch: Annotated[int | None, typer.Option(help="Tiles run at once.", min=1)] = None,
    threads: _Threads = None,
    runtime: _Runtime = None,
    bands: _Bands = None,
    scale: _Scale = None,
    nodata: _Nodata = None,
    resolution: _Resolution = None,
    blend: _Blend = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write NAME.probabilities.tif.")] = False,
    confidence: Annotated[bool, typer.Option("--confidence", help="Write NAME.confidence.tif.")] = False,
    vectors: _Vectors = None,
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
    from segshrink.cli._trust import trusting
    from segshrink.files import writing
    from segshrink.model_file import runs_in_torch
    from segshrink.prediction.scenes import SceneOptions, Shard, estimate_scenes, read_manifest, watch_scenes

    models = [model, *(average or ())]
    options = SceneOptions(
        tile=tile,
        overlap=overlap,
        batch=batch,
        threads=_free_threads() if threads is None and any(map(runs_in_torch, models)) else threads,
        runtime=runtime,
        bands=None if bands is None else words(bands),
        scale=None if scale is None else _scale(scale),
        nodata=nodata,
        resolution=_resolution(resolution),
        blend=blend,
        probabilities=probabilities,
        confidence=confidence,
        vectors=vectors,
        min_area=min_area,
        simplify=simplify,
        overlay=overlay,
        overwrite=overwrite,
    )
    sources = [*(scenes or ()), *(read_manifest(manifest) if manifest else ())]
    share = None if shard is None else Shard.parse(shard)
    if watch is not None and (sources or plan):
        raise UsageError(f"--watch {watch} names all that is predicted; leave scenes, --manifest and --plan out")
    with trusting(*models, trust=trust), nullcontext() if plan else writing(out):
        if watch is not None:
            _watch(watch_scenes(models, watch, out, options, interval=interval, shard=share))
        elif plan:
            _print_plan(estimate_scenes(models, sources, out, options, shard=share))
        else:
            _predict(models, sources, out, options, share)


def _predict(models: list[Path], sources: list[str], out: Path, options: SceneOptions, share: Shard | None) -> None:
    """Predict scenes with a progress bar, and print what was written."""
    from segshrink.cli._console import progress_bar, tell
    from segshrink.prediction.scenes import predict_scenes

    with progress_bar("predict", unit="Mpixel") as advance:

        def progress(done: int, total: int, name: str) -> None:
            advance(done / 1e6, total / 1e6, name)

        results = predict_scenes(models, sources, out, options, shard=share, progress=progress)
    if skipped := sum(result.skipped for result in results):
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
    from segshrink.cli._console import out_console
    from segshrink.formatting import printable

    if not result.skipped:
        out_console().print("\n".join(printable(str(path)) for path in result.files.paths))


def _print_plan(estimate: Estimate) -> None:
    from segshrink.cli._console import out_console, tell
    from segshrink.formatting import duration, listed, size

    if estimate.unreadable:
        names = listed([str(scene) for scene in estimate.unreadable])
        tell(f"{len(estimate.unreadable)} scenes that can't be read don't count: {names}")
    out_console().print(
        f"{estimate.scenes} scenes, {estimate.pixels / 1e6:,.1f} megapixels: about {duration(estimate.seconds)} and "
        f"{size(estimate.bytes)} of results (judged by {estimate.tried} of them, on this machine)"
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
