"""Prediction of scenes as the verb runs it: options from texts, a bar of megapixels, what was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from segshrink.cli._console import out_console, progress_bar, tell
from segshrink.cli._errors import writing
from segshrink.errors import UsageError
from segshrink.formatting import printable
from segshrink.prediction.scenes import SceneOptions, SceneResult, predict_scenes


def options_from(*, bands: str | None, scale: str | None, resolution: str | None, **others: Any) -> SceneOptions:
    """Read the options that are texts on the command line.

    Raises:
        UsageError: One can't be read.
    """
    return SceneOptions(
        bands=None if bands is None else [band.strip() for band in bands.split(",") if band.strip()],
        scale=None if scale is None else _scale(scale),
        resolution=_resolution(resolution),
        **others,
    )


def predict_all(model: Path, scenes: Sequence[str], out: Path, options: SceneOptions) -> list[SceneResult]:
    """Predict scenes under a progress bar and say what was written."""
    if options.threads is None and model.is_dir():
        options = replace(options, threads=_free_threads())
    with progress_bar("predict", unit="Mpixel") as advance, writing(out):

        def progress(done: int, total: int, name: str) -> None:
            advance(done / 1e6, total / 1e6, name)

        results = predict_scenes(model, scenes, out, options, progress=progress)
    skipped = [result for result in results if result.skipped]
    if skipped:
        many = len(skipped) > 1
        tell(
            f"{len(skipped)} scene{'s were' if many else ' was'} predicted before with this model and these options; "
            "--overwrite predicts again"
        )
    console = out_console()
    for result in results:
        if not result.skipped:
            console.print("\n".join(printable(str(path)) for path in result.files.paths), markup=False)
    return results


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
        raise UsageError(f"--resolution takes metres a pixel, such as 0.5, or 'native', found '{text}'") from error


def _free_threads() -> int:
    """How many cores torch should take: those that are free, and no more than it was allowed."""
    import torch

    from segshrink.training.hardware import free_threads

    return min(torch.get_num_threads(), free_threads())
