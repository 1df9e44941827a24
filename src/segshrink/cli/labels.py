"""``segshrink labels``: which labels of a data set are probably wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segshrink.cli._options import AsJson, Trust

if TYPE_CHECKING:
    from segshrink.workflows.labels import LabelErrors

# Regions that a terminal shows.
_SHOWN = 10


def labels(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data set description (YAML).")],
    bank: Annotated[
        list[Path], typer.Option("--bank", "-b", help="Run folder of a bank or a teacher; may be repeated.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the regions of each image.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as root=/data.")
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Part of the data set.")] = "train",
    border: Annotated[int, typer.Option(min=1, help="Leave out regions nowhere wider than twice so many pixels.")] = 3,
    vectors: Annotated[
        Literal["geojson", "gpkg"], typer.Option(help="Format; gpkg needs georeferenced images.")
    ] = "geojson",
    trust: Trust = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace regions of an earlier call, with the decisions in them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find labels that teachers which haven't seen them confidently contradict.

    Each image's regions go to OUT/NAME.geojson, the most rewarding with rank 1, with what the mask says (label) and
    what the teachers say (class). Decide about them in QGIS: accepted = true or false. With label_errors: {regions:
    OUT} in the description, accepted ones correct the masks, and its weight says how much undecided ones count.
    """
    from segshrink.cli._console import print_json, progress_bars
    from segshrink.cli._trust import trusting
    from segshrink.config import load_dataset
    from segshrink.workflows.labels import find_label_errors

    description = load_dataset(data, overrides or ())
    with progress_bars() as progress, trusting(*bank, trust=trust):
        found = find_label_errors(
            description,
            bank,
            out=out,
            split=split,
            border=border,
            vectors=vectors,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(found.to_json())
    else:
        _print(found, out)


def _print(found: LabelErrors, out: Path) -> None:
    from rich.table import Table

    from segshrink.cli._console import out_console, tell
    from segshrink.formatting import listed

    if found.seen:
        tell(f"every teacher has seen the ground of {len(found.seen)} images ({listed(found.seen)}); not examined")
    console = out_console()
    if found.errors:
        table = Table("Rank", "Image", "Label", "Suggestion", "Pixels", "Score", "Gain")
        for rank, error in enumerate(found.errors[:_SHOWN], start=1):
            numbers = (f"{error.pixels:,}", f"{error.score:.2f}", f"{error.gain:,.0f}")
            table.add_row(str(rank), error.image, error.label, error.suggestion, *numbers)
        console.print(table)
    gain = sum(error.gain for error in found.errors)
    console.print(
        f"{len(found.errors)} doubtful regions in {found.images} images of {found.data}; accepting all is expected to "
        f"put {gain:,.0f} pixels right; decide about them in {out}"
    )
