"""What goes beside a chosen model: its card, with the numbers of the very file, and its STAC item."""

from __future__ import annotations

from pathlib import Path

from segshrink.compression.budget import show
from segshrink.compression.search.search import Outcome
from segshrink.errors import ModelError
from segshrink.export.card import model_card
from segshrink.export.metadata import ExportedFile
from segshrink.export.stac import stac_items
from segshrink.files import write_json, write_text
from segshrink.formatting import percent
from segshrink.machine import describe_machine
from segshrink.prediction import open_backend
from segshrink.profiling.load import is_busy
from segshrink.run_folder import RunFolder


def describe_chosen(outcome: Outcome) -> list[Path]:
    """Write ``model.md`` and ``model.stac.json`` beside the chosen model.

    Raises:
        FileError: One can't be written, or the run's numbers can't be read.
        ModelError: The file doesn't say what model it is.
    """
    chosen, model = outcome.chosen, outcome.model
    description = open_backend(model, runtime=outcome.file.runtime).description
    if description is None:
        raise ModelError(f"{model} doesn't say what model it is; search again")
    files = [ExportedFile(model)]
    run = RunFolder(chosen.run) if chosen.run else None
    card = model_card(
        description,
        files,
        name=chosen.name,
        parameters=chosen.parameters,
        evaluation=run.evaluation() if run and run.has_evaluation else None,
        profile=run.profile() if run and run.has_profile else None,
        checked=describe_machine()["cpu"],
    )
    (item,) = stac_items(description, files, name=chosen.name, parameters=chosen.parameters).values()
    page, record = model.with_suffix(".md"), model.with_suffix(".stac.json")
    write_text(page, card + _own_numbers(outcome), overwrite=False)
    write_json(record, item, overwrite=False)
    return [page, record]


def _load(share: float | None) -> str:
    return f"{percent(share)}{', so the latency is too long' if is_busy(share) else ''}"


def _own_numbers(outcome: Outcome) -> str:
    """Return the part of the card on the file itself, which the run's numbers aren't about."""
    file, found = outcome.file, outcome.found
    drop = outcome.chosen.values(file, teacher_iou=found.reference.mean_iou)["drop"]
    rows = [
        ("Made for", f"budget `{found.budget}`"),
        ("Precision", f"{file.precision} on {file.runtime}"),
        ("mIoU", "not measured" if file.mean_iou is None else show("miou", file.mean_iou)),
        ("Below the teacher", "not measured" if drop is None else show("drop", drop)),
        ("Latency", f"{show('latency', file.latency_ms)}, one image of {found.settings.size} × {found.settings.size}"),
        ("Other programs' share of the cores meanwhile", _load(file.load)),
        ("Peak memory", f"{show('memory', 1e6 * file.memory_mb)}, the whole process"),
    ]
    lines = ["", "## This file", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines) + "\n"
