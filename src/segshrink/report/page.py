"""Builds the report: one offline HTML page, figures and images as files, Markdown to paste, the numbers as JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from segshrink import formatting
from segshrink.files import refuse_foreign, replacing, write_json, write_text
from segshrink.folder_lock import claimed
from segshrink.report import comparison, figures
from segshrink.report.class_scores import class_rows
from segshrink.report.composite import composite
from segshrink.report.panels import DARK, LIGHT, Panel, slug
from segshrink.report.pictures import ERROR_COLORS, SHOWN, Example, Images, examples
from segshrink.report.rendering import figure_files, render
from segshrink.report.runs import Run, collect, focus
from segshrink.report.stages import stage_rows
from segshrink.report.study import study_files, study_page
from segshrink.report.summary import Summary, notices, summarize
from segshrink.run_folder import FIGURES, REPORT, WEB_PAGE
from segshrink.run_records import MachineRecord
from segshrink.study_records import STUDY, TuningRecord
from segshrink.version import __version__

# The numbers at the head of the page.
TILES = {
    "mean_iou": "Mean IoU",
    "parameters": "Parameters",
    "file_bytes": "Weight file",
    "latency_ms": "CPU latency",
    "peak_memory_mb": "Peak memory",
}


def report(runs: Sequence[Path], out: Path | None = None, *, images: Images = SHOWN, overwrite: bool = False) -> Path:
    """Write ``report.html``, ``report.md``, ``report.json`` and ``figures/`` (PNG, SVG) from the files of run folders.

    A study's folder gets a page about its trials and figures; ``study.json`` has the numbers.

    Args:
        runs: Run folders; each brings its ``teacher`` and ``control`` folders along. Or one study's folder.
        out: Folder of the report, or its ``.html`` file; by default the first run's folder.
        images: Which images are shown: how many, best, median and worst by score; "random" for ten by chance, the same
            in every report; or their names.
        overwrite: Replace files of these names that this program did not write.

    Returns:
        Path of the page.

    Raises:
        FileError: A run folder is missing, holds no run, a file can't be read or written, something else stands where
            the report goes, or another process is writing there.
        UsageError: No picture was kept of an image that is named.
        DataError: A run's file holds something else than it should.
    """
    page = Path(out) if out is not None else Path(runs[0]) if runs else Path()
    if page.suffix.lower() not in (".html", ".htm"):
        page = page / REPORT
    if len(runs) == 1 and (Path(runs[0]) / STUDY).is_file():
        study = TuningRecord.read(Path(runs[0]) / STUDY)
        _write({page: study_page(study)}, study_files(study), overwrite=overwrite)
        return page
    contents, numbers = _collected(runs, images), page.with_suffix(".json")
    templates = {page: "report.html", page.with_suffix(".md"): "report.md"}
    with claimed(page.parent, tidy=False):
        texts = {path: contents.rendered(template, page.parent) for path, template in templates.items()}
        _write(texts, contents.files(), numbers, overwrite=overwrite)
        write_json(numbers, contents.numbers(), overwrite=overwrite)
    return page


def _write(texts: dict[Path, str], pictures: dict[str, bytes], *further: Path, overwrite: bool) -> None:
    """Write a page, its Markdown and its pictures, where neither they nor further files replace what isn't ours."""
    folder = next(iter(texts)).parent / FIGURES
    files = {folder / name: content for name, content in pictures.items()}
    refuse_foreign(*texts, *further, *files, overwrite=overwrite)
    for path, content in files.items():
        with replacing(path, overwrite=overwrite) as temporary:
            temporary.write_bytes(content)
    for path, text in texts.items():
        write_text(path, text, overwrite=overwrite)


@dataclass(frozen=True)
class _Contents:
    """All that a report shows.

    Attributes:
        runs: Teacher to student.
        groups: The comparison's rows.
        class_groups: Rows of each class's precision, recall, F1, support and area.
        summary: The sentences at the head.
        sections: Figures by the part of the page.
        examples: Images.
        picture_notes: What couldn't be shown of them.
    """

    runs: Sequence[Run]
    groups: dict[str, list[comparison.Row]]
    class_groups: dict[str, list[comparison.Row]]
    summary: Summary
    sections: dict[str, list[Panel]]
    examples: list[Example]
    picture_notes: list[str]
    built: datetime = field(default_factory=lambda: datetime.now().astimezone())

    def files(self) -> dict[str, bytes]:
        """Return the content of every picture by its file name."""
        files = figure_files([panel for panels in self.sections.values() for panel in panels])
        main = focus(self.runs)
        classes = main.evaluation.classes if main and main.evaluation else ()
        label = "the student" if main and main.label == "Student" else main.label if main else ""
        files |= {name: composite(row, classes, label) for name, row in self._composites().items()}
        return files

    def numbers(self) -> dict[str, Any]:
        """Return what the page says, as JSON."""
        return {
            "segshrink": __version__,
            "date": self.built.isoformat(timespec="seconds"),
            "title": self.summary.title,
            "headline": self.summary.sentence,
            "caveat": self.summary.caveat,
            "notices": [{"title": notice.title, "text": notice.text} for notice in notices(self.runs)],
            **comparison.as_json(self.runs, self.groups | self.class_groups),
        }

    def rendered(self, template: str, folder: Path) -> str:
        """Fill in the page's or the Markdown's template, for a folder."""
        runs, main = self.runs, focus(self.runs)
        names = [run.name for run in runs]
        cells = {row.measure.key: row.cells for group in self.groups.values() for row in group}
        return render(
            template,
            built=self.built.strftime("%Y-%m-%d %H:%M"),
            summary=self.summary,
            notices=notices(runs),
            leaking=any(run.leaking for run in runs),
            facts=_facts(runs, main),
            web_page=_web_page(folder, main),
            tiles=[(key, title, cells[key][runs.index(main)]) for key, title in TILES.items() if main and key in cells],
            runs=runs,
            main=main,
            themes=(LIGHT, DARK),
            # A run's own name is shown where it tells something.
            names=[run.name if names.count(run.name) == 1 and run.name != run.label else "" for run in runs],
            groups=self.groups,
            class_groups=self.class_groups,
            staged=[run for run in runs if run.profile and run.profile.stages],
            stage_rows=stage_rows(
                {run.label: run.profile.stages for run in runs if run.profile and run.profile.stages}
            ),
            order=sorted(range(len(runs)), key=lambda place: runs[place] is not main),
            sections=self.sections,
            figures_folder=FIGURES,
            composites=self._composites(),
            examples=self.examples,
            picture_notes=self.picture_notes,
            compared=any(row.compared for row in self.examples),
            error_colors={key: "#{:02x}{:02x}{:02x}".format(*color) for key, color in ERROR_COLORS.items()},
            classes=main.evaluation.classes if main and main.evaluation else (),
        )

    def _composites(self) -> dict[str, Example]:
        """Return the images by the file names of their printable pictures."""
        return {f"image_{place:02d}_{slug(row.name)}.png": row for place, row in enumerate(self.examples, start=1)}


def _collected(runs: Sequence[Path], images: Images) -> _Contents:
    collected = collect(runs)
    return _Contents(
        collected,
        comparison.table(collected),
        class_rows(collected),
        summarize(collected),
        {
            "summary": figures.summary_panels(collected),
            "training": figures.training_panels(collected),
            "curves": figures.curve_panels(collected),
            "confusion": figures.confusion_panels(collected),
            "soft_answers": figures.soft_answer_panels(collected),
            "calibration": figures.calibration_panels(collected),
        },
        *examples(collected, images),
    )


def _web_page(folder: Path, main: Run | None) -> str | None:
    """Return a link to the page that segments images, beside the report or in the run's folder; None without one."""
    for path in (folder / WEB_PAGE, *([main.folder.web_page] if main else ())):
        if path.is_file():
            return quote(Path(os.path.relpath(path, folder)).as_posix())
    return None


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
