"""Results as tables: the comparison of runs, the scores of one evaluation, what is in a data set or a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshrink import formatting
from segshrink.cli._console import empty_table, out_console, tell
from segshrink.data.findings import Inspection, PartFinding
from segshrink.formatting import printable, shortened
from segshrink.report import Run, collect
from segshrink.report.class_scores import class_rows
from segshrink.report.comparison import Cell, table
from segshrink.report.stages import stage_rows
from segshrink.report.study import best_first, trial_cells, trial_headings
from segshrink.report.summary import speed_notices, summarize
from segshrink.study_records import STUDY, TuningRecord

if TYPE_CHECKING:
    from segshrink.evaluation_records import EvaluationRecord
    from segshrink.models.inspection import ModelFinding
    from segshrink.prediction.inspection import FileFinding
    from segshrink.run_records import StageRecord

# What a terminal shows of a model's accuracy; the page shows more.
_ACCURACY = ("mean_iou", "accuracy")
# Trials of a study that it shows.
_TRIALS = 8


def print_comparison(page: Path, runs: Sequence[Path] | None = None) -> None:
    """Print the table and the sentence of a report, and where its page is.

    Args:
        page: The report.
        runs: Run folders it is about; by default the folder that it lies in.
    """
    folders = list(runs) if runs else [page.parent]
    if len(folders) == 1 and (folders[0] / STUDY).is_file():
        print_study(page, folders[0])
        return
    collected = collect(folders)
    comparison = empty_table("", *(run.label for run in collected))
    for title, rows in table(collected).items():
        for row in rows:
            measure = row.measure
            if title == "Accuracy" and measure.key not in _ACCURACY:
                continue
            name = Text.assemble(("■ ", measure.color), measure.label) if measure.color else Text(measure.label)
            comparison.add_row(name, *(_cell(cell) for cell in row.cells))
        comparison.add_section()
    console = out_console()
    console.print(comparison)
    if any(run.evaluation for run in collected):
        console.print(_class_table(collected))
    for notice in speed_notices(collected):
        tell(f"{notice.title[:1].lower()}{notice.title[1:]}: {notice.text}")
    summary = summarize(collected)
    console.print(" ".join(part for part in (summary.sentence, summary.caveat) if part))
    console.print(f"report: {page}")


def _class_table(runs: Sequence[Run]) -> Table:
    """Return precision, recall and F1 of each class and their means, of every run."""
    per_class = empty_table("", *(run.label for run in runs), title="Precision, recall, F1")
    precision, recall, f1 = list(class_rows(runs).values())[:3]
    for rows in zip(precision, recall, f1, strict=True):
        measure = rows[0].measure
        label = Text.assemble(("■ ", measure.color), measure.label) if measure.color else Text(measure.label)
        columns = zip(*(row.cells for row in rows), strict=True)
        per_class.add_row(label, *(" ".join(cell.text for cell in cells) for cells in columns))
    return per_class


def print_study(page: Path, folder: Path) -> None:
    """Print the best trials of a study beside the recipe itself, and where its page and its recipes are."""
    study = TuningRecord.read(folder / STUDY)
    console, headings = out_console(), trial_headings(study)
    # What was tried stands in one column of lines: a terminal is too narrow for a column each.
    fixed = headings.index("time") + 1
    for each in study.studies:
        trials = empty_table(*headings[:fixed], title=f"Trials of the {each.role}", left=0)
        trials.add_column("tried", ratio=1)
        for place, trial in enumerate(best_first(study, each)):
            if place < _TRIALS or trial.recipe:
                cells = trial_cells(study, trial)
                named = zip(headings[fixed:], cells[fixed:], strict=True)
                tried = ", ".join(f"{name} {cell}" for name, cell in named if cell != formatting.NOTHING)
                trials.add_row(*cells[:fixed], tried, style="bold" if trial.number == each.best else "")
        console.print(trials)
    console.print(f"{study.status}; report: {page}")


def print_scores(evaluation: EvaluationRecord) -> None:
    """Print an evaluation's scores of each class and of all."""
    scores = evaluation.scores
    per_class = empty_table("class", "IoU", "precision", "recall", "F1", "support", "area", "corrected area")
    columns = (scores.iou, scores.precision, scores.recall, scores.f1)
    for number, (entry, area) in enumerate(zip(evaluation.classes, evaluation.areas, strict=True)):
        label = Text.assemble(("■ ", entry.color), entry.name)
        ends = formatting.percent_interval(area.low, area.high)
        shares = formatting.percent(area.mapped), f"{formatting.percent(area.adjusted)}{f' ({ends})' if ends else ''}"
        numbers = (formatting.score(column[number]) for column in columns)
        per_class.add_row(label, *numbers, formatting.count(scores.support[number]), *shares)
    per_class.add_section()
    for name in ("macro", "weighted"):
        means = (getattr(scores, f"{name}_{score}") for score in ("precision", "recall", "f1"))
        per_class.add_row(f"{name} mean", "", *map(formatting.score, means))
    console = out_console()
    console.print(per_class)
    accuracy = formatting.score(scores.accuracy)
    if evaluation.interval:
        accuracy = f"{accuracy} ({formatting.interval(evaluation.interval.accuracy)})"
    mean_accuracy, kappa = map(formatting.score, (scores.mean_accuracy, scores.kappa))
    overall = f"overall accuracy {accuracy}, mean accuracy {mean_accuracy}, kappa {kappa}"
    interval = ""
    if evaluation.interval:
        low, high = evaluation.interval.mean_iou
        interval = f" ({evaluation.interval.level:.0%} interval over images {low:.3f} to {high:.3f})"
    leaking = " (the split leaks: these scores are too good)" if evaluation.leaking else ""
    if evaluation.truth == "teacher":
        leaking += " (no image has a mask: this is agreement with the teacher)"
    console.print(
        f"mIoU {scores.mean_iou:.3f}{interval}, {overall}; {evaluation.data}, {evaluation.split} split, "
        f"{evaluation.images} images, {evaluation.pixels:,} labeled pixels{leaking}"
    )
    if (inner := evaluation.inner) is not None:
        console.print(
            f"further than {inner.border} pixels from label borders: mIoU {inner.scores.mean_iou:.3f}, accuracy "
            f"{formatting.score(inner.scores.accuracy)}; {inner.pixels:,} labeled pixels"
        )
    if evaluation.never_predicted:
        console.print(f"never predicted: {', '.join(evaluation.never_predicted)}", style="bold red")


def print_averages(evaluations: Mapping[str, EvaluationRecord]) -> None:
    """Print the scores of several models and of their average, one a row."""
    classes = [Text.assemble(("■ ", entry.color), entry.name) for entry in next(iter(evaluations.values())).classes]
    per_model = empty_table("model", "mIoU", "accuracy", "macro F1", *classes)
    for name, evaluation in evaluations.items():
        scores = evaluation.scores
        overall = (scores.mean_iou, scores.accuracy, scores.macro_f1)
        per_model.add_row(name, *map(formatting.score, (*overall, *scores.iou)))
    out_console().print(per_model)


def print_model(finding: ModelFinding) -> None:
    """Print a model's size and classes, and the table of its features."""
    console = out_console()
    console.print(Text.assemble((finding.id, "bold"), f"  {finding.source}" if finding.source != finding.id else ""))
    console.print(
        f"{finding.parameters:,} parameters, {finding.bands} bands, images padded to multiples of {finding.stride} "
        "pixels"
    )
    if finding.resize is not None:
        console.print(f"working size: {finding.resize}")
    unknown = "those of the data set that it is trained on (parameters are counted with two)"
    classes = unknown if finding.classes is None else ", ".join(finding.classes)
    console.print(f"classes: {classes}")
    title = f"Features of a {finding.size} × {finding.size} image"
    table = empty_table("role", "path", "channels", "stride", "height × width", title=title, left=2)
    for role in finding.roles:
        channels, height, width = role.shape
        shown = "C" if role.name == "logits" and finding.classes is None else str(channels)
        table.add_row(role.name, role.path or "(the model)", shown, str(role.stride), f"{height} × {width}")
    console.print(table)


def print_file(finding: FileFinding, parameters: int | None) -> None:
    """Print what a file of a network takes and gives, and how it is read."""
    console = out_console()
    weights = "" if parameters is None else f", {parameters:,} weights"
    by = "written by segshrink" if finding.described else "not written by segshrink"
    console.print(f"{finding.source} ({finding.runtime}, {formatting.size(finding.bytes)}{weights}), {by}")
    table = empty_table("", "name", "shape", "type", left=4)
    for what, port in (("takes", finding.takes), *(("gives", port) for port in finding.gives)):
        shape = " × ".join("any" if side is None else str(side) for side in port["shape"])
        table.add_row(what, port["name"], shape, port["dtype"])
    console.print(table)
    if finding.classes is not None:
        console.print(f"{finding.bands} bands, classes: {', '.join(finding.classes)}")
    for sentence in finding.reading:
        console.print(sentence)
    if finding.problem is not None:
        console.print(finding.problem)


def print_stages(networks: Mapping[str, Sequence[StageRecord]], *, size: int) -> None:
    """Print channels, parameters and multiply-adds of networks' stages side by side."""
    table = empty_table("stage", *networks, title=f"Channels, parameters, multiply-adds for {size} × {size} pixels")
    for row in stage_rows(networks):
        table.add_row(row.name, *(", ".join(filter(None, cells)) for cells in row.cells))
    out_console().print(table)


def print_inspection(inspection: Inspection) -> None:
    """Print what was found: the parts, the classes, and every problem with its remedy."""
    console = out_console()
    console.print(Text.assemble((inspection.name, "bold"), f"  {inspection.root}"))
    if inspection.parts:
        console.print(_parts_table(inspection))
        console.print(_classes_table(inspection))
    _print_sizes(console, inspection)
    for problem, count in inspection.faults.items():
        more = f" ({count - 1} more like it; --json lists all)" if count > 1 else ""
        label = ("must be fixed", "bold red") if problem.severity == "error" else ("please look at", "bold yellow")
        console.print(Text.assemble(label, f"  {printable(shortened(problem.message))}{more}"))
    errors = sum(problem.severity == "error" for problem in inspection.problems)
    if inspection.sound:
        console.print(Text("ready to train", "bold green"))
    else:
        console.print(Text(f"{errors} problem{'s' if errors > 1 else ''} must be fixed", "bold red"))


def _parts_table(inspection: Inspection) -> Table:
    table = empty_table("part", "images", "labeled pixels", "ignored", title="Images")
    for part in inspection.parts:
        labeled = part.pixels - part.ignored
        ignored = f"{part.ignored_share:.1%}" if part.pixels else "–"
        table.add_row(part.name, f"{part.samples:,}", f"{labeled:,}" if part.pixels else "–", ignored)
    return table


def _classes_table(inspection: Inspection) -> Table:
    parts = [part for part in inspection.parts if part.pixels]
    table = empty_table("class", *(part.name for part in parts), title="Share of the labeled pixels")
    for name, color in inspection.classes.items():
        table.add_row(Text.assemble(("■ ", color), name), *(_share(part, name) for part in parts))
    return table


def _share(part: PartFinding, name: str) -> str:
    return f"{part.class_shares[name]:.1%}" if part.class_pixels[name] else "none"


def _print_sizes(console: Console, inspection: Inspection) -> None:
    if not inspection.sizes:
        return
    shown = [f"{size} ({count})" for size, count in list(inspection.sizes.items())[:6]]
    more = f" and {len(inspection.sizes) - 6} more" if len(inspection.sizes) > 6 else ""
    kinds = sorted({f"{image.bands} bands of {image.dtype}" for image in inspection.images if image.bands is not None})
    console.print(f"sizes (height × width): {', '.join(shown)}{more}; {', '.join(kinds)}")
    if inspection.band_names is not None:
        console.print(f"bands: {', '.join(inspection.band_names)}")
    if inspection.resolution is not None:
        console.print(f"ground resolution: {inspection.resolution:g} m a pixel")
    if inspection.resize is not None:
        console.print(f"working size: {inspection.resize}")
    if inspection.images:
        says, changes = (
            ("images say where on the ground they lie", "mirrored both ways and turned")
            if inspection.georeferenced
            else ("images don't say where on the ground they lie", "mirrored left-right only")
        )
        other = "photo" if inspection.georeferenced else "aerial"
        console.print(
            f"augmentation: {inspection.augmentation} by default ({says}): crops are {changes}; a recipe's "
            f"'augmentation: {other}' changes that"
        )
    if inspection.ground:
        shared = [" and ".join(names) for names in inspection.ground if len(names) > 1]
        note = f"; the same ground is in {', '.join(shared)}" if shared else ""
        groups = sum(map(len, inspection.ground))
        console.print(f"ground: {groups} groups of training images, {len(inspection.ground)} of them independent{note}")
    for name, held in inspection.merged.items():
        console.print(f"{name} is {', '.join(map(str, held))} in masks")
    for source, count in inspection.drawn_from.items():
        console.print(f"masks of {count} images are drawn from {source}")
    if inspection.resized_masks:
        count = len(inspection.resized_masks)
        console.print(f"mask_resize: {count} masks are brought to their image's size")
    if inspection.excluded:
        console.print(f"exclude: {len(inspection.excluded)} images are left out")
    if inspection.unused:
        console.print(f"{inspection.unused} images belong to no part of the split")


def _cell(cell: Cell) -> Text:
    below = ((text, style) for text, style in ((cell.note, "dim"), (cell.doubt, "red")) if text)
    return Text.assemble(cell.text, *((f"\n{text}", style) for text, style in below))
