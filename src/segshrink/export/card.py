"""The model card: what a model is, what was measured, and how to run it, on one page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined, select_autoescape

from segshrink.colors import format_color
from segshrink.evaluation_records import EvaluationRecord
from segshrink.export.metadata import ExportedFile, band_names
from segshrink.formatting import markdown, percent
from segshrink.model_description import ModelDescription
from segshrink.run_records import ProfileRecord
from segshrink.working_size import in_words

_SHAPES = {
    "logits": "(N, C, H, W) float32",
    "probabilities": "(N, C, H, W) float32, adding up to 1 over the classes",
    "classes": "(N, H, W) uint8, the number of the most likely class",
}


def model_card(
    description: ModelDescription,
    files: Sequence[ExportedFile],
    *,
    name: str,
    parameters: int,
    evaluation: EvaluationRecord | None = None,
    profile: ProfileRecord | None = None,
    checked: str | None = None,
) -> str:
    """Return the card as Markdown.

    Args:
        description: The model's description.
        files: What was exported.
        name: Name of the model.
        parameters: How many it has.
        evaluation: Its scores in PyTorch; None where nobody measured.
        profile: What it costs in PyTorch; None where nobody measured.
        checked: The processor that the file itself was scored and timed on, where that was done.
    """
    environment = Environment(
        autoescape=select_autoescape(default_for_string=False),  # Markdown is escaped by the filter "plain"
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _plain, "percent": _percent, "in_words": in_words}
    template = resources.files("segshrink.export").joinpath("model_card.md.jinja").read_text(encoding="utf-8")
    classes = description.classes
    return environment.from_string(template).render(
        description=description,
        files=files,
        shown=_files_to_show(files),
        name=name,
        parameters=parameters,
        evaluation=evaluation,
        profile=profile,
        load=_load(profile),
        checked=checked,
        bands=band_names(description),
        names=classes.names,
        colors=[format_color(color) for color in classes.colors],
        iou=evaluation.scores.iou if evaluation is not None and len(evaluation.scores.iou) == len(classes) else None,
        shapes=_SHAPES,
    )


def _files_to_show(files: Sequence[ExportedFile]) -> list[ExportedFile]:
    """Return one file of each interface, an .onnx before others."""
    kinds: dict[tuple[object, ...], ExportedFile] = {}
    for file in sorted(files, key=lambda file: file.kind != ".onnx"):
        kinds.setdefault((file.tiles, file.outputs, file.float_pixels), file)
    return [file for file in files if file in kinds.values()]


def _load(profile: ProfileRecord | None) -> str:
    if profile is None or profile.load is None or profile.load.others is None:
        return ""
    doubt = ", so this is too long" if profile.busy else ""
    return f"; other programs took {percent(profile.load.others)} of the cores{doubt}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _plain(text: object) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return markdown(" ".join(str(text).split()))
