"""Builds the report: one offline HTML page, the same figures as PNG, the table's numbers as JSON."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

import segshrink
from segshrink import formatting
from segshrink.files import refuse_foreign, replacing, write_json, write_text
from segshrink.report import comparison, figures
from segshrink.report.collect import ClassColor, Run, collect
from segshrink.report.panels import Panel
from segshrink.report.pictures import ERROR_COLORS, data_uri, examples
from segshrink.report.selection import focus, labels, leaking
from segshrink.report.summary import headline, notices
from segshrink.report.themes import DARK, LIGHT, run_colors, to_png, to_svg
from segshrink.report.training_figures import training_panels

PAGE, FIGURES = "report.html", "figures"
REPORT_FILES = (PAGE, "report.json", FIGURES)


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it: the same drawing for light and dark mode, as data URIs."""

    panel: Panel
    light: str
    dark: str


@dataclass(frozen=True)
class Column:
    """A run as a column of the table and an entry of legends; ``name`` is empty where it tells nothing."""

    label: str
    run: Run
    light: str
    dark: str
    name: str

    @property
    def leaking(self) -> bool:
        """Whether the run's scores come from a leaking split."""
        return self.run.evaluation is not None and self.run.evaluation.leaking


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
    found = collect(runs)
    page = Path(out) if out is not None else Path(runs[0])
    if page.suffix.lower() not in (".html", ".htm"):
        page = page / PAGE
    record = page.with_suffix(".json")
    sections = {
        "summary": figures.summary_panels(found),
        "training": training_panels(found),
        "curves": figures.curve_panels(found),
        "confusion": figures.confusion_panels(found),
        "calibration": figures.calibration_panels(found),
    }
    pictures = {page.parent / FIGURES / f"{panel.key}.png": panel for panels in sections.values() for panel in panels}
    refuse_foreign(page, record, *pictures, overwrite=overwrite)
    for path, panel in pictures.items():
        with replacing(path, overwrite=overwrite) as temporary:
            temporary.write_bytes(to_png(panel.draw, panel.full_title))
    shown = {key: [_show(panel) for panel in panels] for key, panels in sections.items()}
    groups = comparison.table(found)
    text = headline(found)
    numbers = {
        "segshrink": segshrink.__version__,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "title": text.title,
        "headline": text.sentence,
        "caveat": text.caveat,
        "notices": [{"title": notice.title, "text": notice.text} for notice in notices(found)],
        **comparison.as_json(found, groups),
    }
    write_text(page, _render(found, groups, shown), overwrite=overwrite)
    write_json(record, numbers, overwrite=overwrite)
    return page


def _show(panel: Panel) -> Shown:
    light, dark = (data_uri(svg, "image/svg+xml") for svg in to_svg(panel.draw))
    return Shown(panel, light, dark)


def _render(runs: list[Run], groups: list[comparison.Group], shown: dict[str, list[Shown]]) -> str:
    rows, picture_notes = examples(runs)
    main = focus(runs)
    names = [run.name for run in runs]
    columns = [
        Column(label, run, light, dark, run.name if names.count(run.name) == 1 and run.name != label else "")
        for label, run, light, dark in zip(
            labels(runs), runs, run_colors(runs, LIGHT), run_colors(runs, DARK), strict=True
        )
    ]
    script = _file("script.js")
    environment = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        version=segshrink.__version__,
        built=datetime.now().strftime("%Y-%m-%d %H:%M"),
        headline=headline(runs),
        notices=notices(runs),
        leaking=leaking(runs),
        facts=_facts(runs, main),
        tiles=_tiles(runs, main),
        columns=columns,
        groups=groups,
        order=sorted(range(len(runs)), key=lambda place: runs[place] is not main),
        shown=shown,
        missing=_missing(columns),
        examples=rows,
        picture_notes=picture_notes,
        main=columns[runs.index(main)] if main else None,
        compared=any(row.compared for row in rows),
        error_colors={key: "#{:02x}{:02x}{:02x}".format(*color) for key, color in ERROR_COLORS.items()},
        classes=_legend(main),
        style=_file("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def _file(name: str) -> str:
    return resources.files("segshrink.report").joinpath("template", name).read_text(encoding="utf-8")


def _legend(main: Run | None) -> tuple[ClassColor, ...]:
    return main.evaluation.classes if main and main.evaluation else ()


def _facts(runs: list[Run], main: Run | None) -> list[tuple[str, str]]:
    """What was judged, where and when."""
    facts: list[tuple[str, str]] = []
    evaluation = main.evaluation if main else None
    if evaluation:
        split = f"{evaluation.split} (leaking)" if evaluation.leaking else evaluation.split
        facts.append(("Data", evaluation.data))
        facts.append(
            ("Judged on", f"{evaluation.images} images of {split}, {formatting.scaled(evaluation.pixels)} pixels")
        )
        facts.append(("Evaluated", formatting.day(evaluation.date)))
    machine = next((run.machine for run in [*([main] if main else []), *runs] if run.machine), {})
    if machine:
        facts.append(("Trained on", _machine(machine)))
    profile = next((run.profile for run in runs if run.profile and run.profile.machine), None)
    if profile and profile.machine and profile.machine != machine.get("cpu"):
        facts.append(("Speed measured on", profile.machine))
    return facts


def _machine(machine: dict[str, str]) -> str:
    """Write a machine in one line; what its run doesn't tell is left out."""
    forms = {
        "cpu": "{}",
        "cores": "{} cores",
        "memory_gb": "{} GB",
        "device": "{}",
        "precision": "precision {}",
        "torch": "torch {}",
    }
    told = {key: value for key, value in machine.items() if (key, value) != ("device", "cpu")}
    return ", ".join(form.format(told[key]) for key, form in forms.items() if key in told)


def _tiles(runs: list[Run], main: Run | None) -> list[Tile]:
    """Return the few numbers that matter most."""
    if main is None or main.evaluation is None:
        return []
    place = runs.index(main)
    cells = {row.key: row.cells[place] for group in comparison.table(runs) for row in group.rows}
    titles = {
        "mean_iou": "Mean IoU",
        "parameters": "Parameters",
        "file_bytes": "Weight file",
        "latency_ms": "CPU latency",
        "peak_memory_mb": "Peak memory",
    }
    found = []
    for key, title in titles.items():
        cell = cells.get(key)
        if cell and cell.value is not None:
            joint = "as" if cell.to_teacher == "the same" else "against" if key == "mean_iou" else "than"
            against = f"{cell.to_teacher} {joint} the teacher" if cell.to_teacher else cell.interval
            beside = ", ".join(part for part in (against, cell.doubt) if part)
            found.append(Tile(title, cell.text, beside, key == "mean_iou" and main.evaluation.leaking))
    return found


def _missing(columns: list[Column]) -> dict[str, str]:
    """For each part, a sentence on the runs that have no files for it."""
    absent: dict[str, Any] = {
        "evaluation": ("evaluation.json", [c.label for c in columns if c.run.evaluation is None]),
        "profile": ("profile.json", [c.label for c in columns if c.run.profile is None]),
        "training": ("metrics.csv", [c.label for c in columns if not c.run.metrics]),
    }
    return {
        part: f"{formatting.listing(names)}: no {file} in the run folder, so left out here." if names else ""
        for part, (file, names) in absent.items()
    }
