"""``segshrink report``: run folders as one offline page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segshrink.cli._options import AsJson, Overwrite

if TYPE_CHECKING:
    from segshrink.report.pictures import Images


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders; each brings the teacher/ and control/ inside it along."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder or .html file; by default the first run's folder.")
    ] = None,
    images: Annotated[
        str,
        typer.Option(
            help='How many images are shown (best, median, worst); "random" for ten by chance; or names, with commas.'
        ),
    ] = "10",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare runs on one page.

    Writes report.html (one file, works offline), report.md, report.json and figures/ from the files of run folders.
    """
    from segshrink.cli._console import print_json
    from segshrink.cli._tables import print_comparison
    from segshrink.files import read_json, writing
    from segshrink.report import report as write_report
    from segshrink.study_records import STUDY

    with writing(out or runs[0]):
        page = write_report(runs, out, images=_images(images), overwrite=overwrite)
    if as_json:
        study = runs[0] / STUDY
        print_json(read_json(study if len(runs) == 1 and study.is_file() else page.with_suffix(".json")))
    else:
        print_comparison(page, runs)


def _images(text: str) -> Images:
    if text == "random":
        return "random"
    return int(text) if text.isdigit() else tuple(name.strip() for name in text.split(","))
