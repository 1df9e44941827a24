"""Builds the report: one offline HTML page, the same figures as PNG, the table's numbers as JSON."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
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
from segshrink.run_folder import FIGURES, REPORT
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


def report(runs: Sequence[Path], out: Path | None = None, *, overwrite: bool = False) -> Path:
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
        "training": figures.training_panels(collected),
        "curves": figures.curve_panels(collected),
        "confusion": figures.confusion_panels(collected),
        "calibration": figures.calibration_panels(collected),
    }
    pictures = {page.parent / FIGURES / f"{panel.key}.png": panel for panels in sections.values() for panel in panels}
    refuse_foreign(page, record, *pictures, overwrite=overwrite)
    for path, panel in pictures.items():
        with replacing(path, overwrite=overwrite) as temporary:
            temporary.write_bytes(to_png(panel))
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
    write_text(page, _render(collected, groups, summary, sections), overwrite=overwrite)
    write_json(record, numbers, overwrite=overwrite)
    return page


def _render(
    runs: Sequence[Run],
    groups: dict[str, list[comparison.Row]],
    summary: Summary,
    sections: dict[str, list[Panel]],
) -> str:
    rows, picture_notes = examples(runs)
    main = focus(runs)
    names = [run.name for run in runs]
    script = _file("script.js")
    environment = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    cells = {row.measure.key: row.cells for group in groups.values() for row in group}
    return environment.get_template("report.html").render(
        version=__version__,
        built=datetime.now().strftime("%Y-%m-%d %H:%M"),
        summary=summary,
        notices=notices(runs),
        leaking=any(run.leaking for run in runs),
        facts=_facts(runs, main),
        tiles=[(key, title, cells[key][runs.index(main)]) for key, title in TILES.items() if main and key in cells],
        runs=runs,
        main=main,
        themes=(LIGHT, DARK),
        # A run's own name is shown where it tells something.
        names=[run.name if names.count(run.name) == 1 and run.name != run.label else "" for run in runs],
        groups=groups,
        order=sorted(range(len(runs)), key=lambda place: runs[place] is not main),
        sections={key: [(panel, *_pictures(panel)) for panel in panels] for key, panels in sections.items()},
        examples=rows,
        picture_notes=picture_notes,
        compared=any(row.compared for row in rows),
        error_colors={key: "#{:02x}{:02x}{:02x}".format(*color) for key, color in ERROR_COLORS.items()},
        classes=main.evaluation.classes if main and main.evaluation else (),
        style=_file("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def _pictures(panel: Panel) -> list[str]:
    """Return the figure for light and for dark pages, as data URIs."""
    return [data_uri(svg, "image/svg+xml") for svg in to_svg(panel)]


def _file(name: str) -> str:
    return resources.files("segshrink.report").joinpath("template", name).read_text(encoding="utf-8")


def _facts(runs: Sequence[Run], main: Run | None) -> list[tuple[str, str]]:
    """What was judged, where and when."""
    facts: list[tuple[str, str]] = []
    if main and (evaluation := main.evaluation):
        split = f"{evaluation.split} (leaking)" if evaluation.leaking else evaluation.split
        judged = f"{evaluation.images} images of {split}, {formatting.scaled(evaluation.pixels)} pixels"
        facts += [("Data", evaluation.data), ("Judged on", judged), ("Evaluated", formatting.day(evaluation.date))]
    machines = [run.record.machine for run in [*([main] if main else []), *runs] if run.record.machine.cpu]
    if machines:
        facts.append(("Trained on", _machine(machines[0])))
    measured = next((run.profile.machine.cpu for run in runs if run.profile and run.profile.machine.cpu), None)
    if measured and not any(machine.cpu == measured for machine in machines[:1]):
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
