"""Builds the report: one offline HTML page, the same figures as PNG, the table's numbers as JSON."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined

from segshrink import formatting
from segshrink.files import refuse_foreign, replacing, write_json, write_text
from segshrink.report import comparison, figures
from segshrink.report.panels import DARK, LIGHT, Panel, to_png, to_svg
from segshrink.report.pictures import ERROR_COLORS, data_uri, examples
from segshrink.report.runs import Run, collect, focus
from segshrink.report.summary import Summary, notices, summarize
from segshrink.report.training_figures import training_panels
from segshrink.run_folder import EVALUATION, FIGURES, METRICS, PROFILE, REPORT
from segshrink.run_records import MachineRecord
from segshrink.version import __version__

# The numbers at the head of the page.
TILES = {
    "mean_iou": "Mean IoU",
    "parameters": "Parameters",
    "file_bytes": "Weight file",
    "latency_ms": "CPU latency",
    "peak_memory_mb": "Peak memory",
}


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it: the same drawing for light and dark mode, as data URIs."""

    panel: Panel
    light: str
    dark: str


@dataclass(frozen=True)
class Tile:
    """A number at the head of the page, and what it is beside the teacher's."""

    title: str
    number: str
    beside: str
    leaking: bool


def build_report(runs: Sequence[Path], out: Path | None = None, *, overwrite: bool = False) -> Path:
    """Write ``report.html``, ``report.json`` and ``figures/*.png`` from the files of run folders.

    Args:
        runs: Run folders; each brings its ``teacher`` and ``control`` folders along.
        out: Folder of the report, or its ``.html`` file; by default the first run's folder.
        overwrite: Replace files of these names that this program did not write.

    Returns:
        Path of the page.

    Raises:
        FileError: A run folder is missing, holds no run, a file can't be read or written, or something else stands
            where the report goes.
        DataError: A run's file holds something else than it should.
    """
    collected = collect(runs)
    page = Path(out) if out is not None else Path(runs[0])
    if page.suffix.lower() not in (".html", ".htm"):
        page = page / REPORT
    record = page.with_suffix(".json")
    sections = {
        "summary": figures.summary_panels(collected),
        "training": training_panels(collected),
        "curves": figures.curve_panels(collected),
        "confusion": figures.confusion_panels(collected),
        "calibration": figures.calibration_panels(collected),
    }
    pictures = {page.parent / FIGURES / f"{panel.key}.png": panel for panels in sections.values() for panel in panels}
    refuse_foreign(page, record, *pictures, overwrite=overwrite)
    for path, panel in pictures.items():
        with replacing(path, overwrite=overwrite) as temporary:
            temporary.write_bytes(to_png(panel.draw, panel.full_title))
    groups, summary = comparison.table(collected), summarize(collected)
    numbers = {
        "segshrink": __version__,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "title": summary.title,
        "headline": summary.sentence,
        "caveat": summary.caveat,
        "notices": [{"title": notice.title, "text": notice.text} for notice in notices(collected)],
        **comparison.as_json(collected, groups),
    }
    shown = {key: [_show(panel) for panel in panels] for key, panels in sections.items()}
    write_text(page, _render(collected, groups, summary, shown), overwrite=overwrite)
    write_json(record, numbers, overwrite=overwrite)
    return page


def _show(panel: Panel) -> Shown:
    light, dark = (data_uri(svg, "image/svg+xml") for svg in to_svg(panel.draw))
    return Shown(panel, light, dark)


def _render(
    runs: Sequence[Run], groups: Sequence[comparison.Group], summary: Summary, shown: dict[str, list[Shown]]
) -> str:
    rows, picture_notes = examples(runs)
    main = focus(runs)
    names = [run.name for run in runs]
    script = _file("script.js")
    environment = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        version=__version__,
        built=datetime.now().strftime("%Y-%m-%d %H:%M"),
        summary=summary,
        notices=notices(runs),
        leaking=any(run.leaking for run in runs),
        facts=_facts(runs, main),
        tiles=_tiles(runs, groups, main),
        runs=runs,
        themes=(LIGHT, DARK),
        # A name is shown where it tells something.
        names=[run.name if names.count(run.name) == 1 and run.name != run.label else "" for run in runs],
        groups=groups,
        order=sorted(range(len(runs)), key=lambda place: runs[place] is not main),
        shown=shown,
        missing=_missing(runs),
        examples=rows,
        picture_notes=picture_notes,
        main=main,
        compared=any(row.compared for row in rows),
        error_colors={key: "#{:02x}{:02x}{:02x}".format(*color) for key, color in ERROR_COLORS.items()},
        classes=main.evaluation.classes if main and main.evaluation else (),
        style=_file("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def _file(name: str) -> str:
    return resources.files("segshrink.report").joinpath("template", name).read_text(encoding="utf-8")


def _facts(runs: Sequence[Run], main: Run | None) -> list[tuple[str, str]]:
    """What was judged, where and when."""
    facts: list[tuple[str, str]] = []
    if main and (evaluation := main.evaluation):
        split = f"{evaluation.split} (leaking)" if evaluation.leaking else evaluation.split
        judged = f"{evaluation.images} images of {split}, {formatting.scaled(evaluation.pixels)} pixels"
        facts += [("Data", evaluation.data), ("Judged on", judged), ("Evaluated", formatting.day(evaluation.date))]
    empty = MachineRecord()
    machines = [run.record.machine for run in [*([main] if main else []), *runs]]
    machine = next((machine for machine in machines if machine != empty), empty)
    if text := _machine(machine):
        facts.append(("Trained on", text))
    measured = next((run.profile.machine.cpu for run in runs if run.profile and run.profile.machine.cpu), None)
    if measured and measured != machine.cpu:
        facts.append(("Speed measured on", measured))
    return facts


def _machine(machine: MachineRecord) -> str:
    """Write a machine in one line; what its run doesn't tell is left out."""
    parts = (
        ("{}", machine.cpu),
        ("{} cores", machine.cores),
        ("{:.0f} GB", machine.memory_gb),
        ("{}", None if machine.device == "cpu" else machine.device),
        ("precision {}", machine.precision),
        ("torch {}", machine.torch),
    )
    return ", ".join(form.format(value) for form, value in parts if value)


def _tiles(runs: Sequence[Run], groups: Sequence[comparison.Group], main: Run | None) -> list[Tile]:
    """Return the few numbers that matter most."""
    if main is None or main.evaluation is None:
        return []
    cells = {row.key: row.cells[runs.index(main)] for group in groups for row in group.rows}
    tiles = []
    for key, title in TILES.items():
        cell = cells.get(key)
        if cell and cell.value is not None:
            joint = "as" if cell.to_teacher == "the same" else "against" if key == "mean_iou" else "than"
            against = f"{cell.to_teacher} {joint} the teacher" if cell.to_teacher else cell.interval
            beside = ", ".join(part for part in (against, cell.doubt) if part)
            tiles.append(Tile(title, cell.text, beside, key == "mean_iou" and main.leaking))
    return tiles


def _missing(runs: Sequence[Run]) -> dict[str, str]:
    """For each part, a sentence on the runs that have no files for it."""
    absent = {
        "evaluation": (EVALUATION, [run.label for run in runs if run.evaluation is None]),
        "profile": (PROFILE, [run.label for run in runs if run.profile is None]),
        "training": (METRICS, [run.label for run in runs if not run.metrics]),
    }
    return {
        part: f"{formatting.listing(names)}: no {file} in the run folder, so left out here." if names else ""
        for part, (file, names) in absent.items()
    }
