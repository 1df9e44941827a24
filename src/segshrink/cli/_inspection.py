"""An inspection as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshrink.cli._console import out_console
from segshrink.data.findings import Inspection, PartFinding
from segshrink.formatting import printable, shortened


def print_inspection(found: Inspection) -> None:
    """Print what was found: the parts, the classes, and every problem with its remedy."""
    console = out_console()
    console.print(Text.assemble((found.name, "bold"), f"  {found.root}"))
    if found.parts:
        console.print(_parts_table(found))
        console.print(_classes_table(found))
    _print_sizes(console, found)
    for problem in found.problems:
        label = ("must be fixed", "bold red") if problem.severity == "error" else ("please look at", "bold yellow")
        console.print(Text.assemble(label, f"  {printable(shortened(problem.message))}"))
    errors = sum(problem.severity == "error" for problem in found.problems)
    if found.sound:
        console.print(Text("ready to train", "bold green"))
    else:
        console.print(Text(f"{errors} problem{'s' if errors > 1 else ''} must be fixed", "bold red"))


def _parts_table(found: Inspection) -> Table:
    table = Table(title="Images", title_justify="left")
    table.add_column("part")
    for name in ("images", "labelled pixels", "ignored"):
        table.add_column(name, justify="right")
    for part in found.parts:
        labeled = part.pixels - part.ignored
        ignored = f"{part.ignored_share:.1%}" if part.pixels else "–"
        table.add_row(part.name, f"{part.samples:,}", f"{labeled:,}" if part.pixels else "–", ignored)
    return table


def _classes_table(found: Inspection) -> Table:
    parts = [part for part in found.parts if part.pixels]
    table = Table(title="Share of the labelled pixels", title_justify="left")
    table.add_column("class")
    for part in parts:
        table.add_column(part.name, justify="right")
    for name, color in found.classes.items():
        table.add_row(Text.assemble(("■ ", color), name), *(_share(part, name) for part in parts))
    return table


def _share(part: PartFinding, name: str) -> str:
    return f"{part.class_shares[name]:.1%}" if part.class_pixels[name] else "none"


def _print_sizes(console: Console, found: Inspection) -> None:
    if not found.sizes:
        return
    shown = [f"{size} ({count})" for size, count in list(found.sizes.items())[:6]]
    more = f" and {len(found.sizes) - 6} more" if len(found.sizes) > 6 else ""
    kinds = sorted({f"{image.bands} bands of {image.dtype}" for image in found.images if image.bands is not None})
    console.print(f"sizes (height × width): {', '.join(shown)}{more}; {', '.join(kinds)}", markup=False)
    if found.band_names is not None:
        console.print(f"bands: {', '.join(found.band_names)}", markup=False)
    if found.resolution is not None:
        console.print(f"ground resolution: {found.resolution:g} m a pixel", markup=False)
    if found.images:
        says, changes = (
            ("images say where on the ground they lie", "mirrored both ways and turned")
            if found.georeferenced
            else ("images don't say where on the ground they lie", "mirrored left-right only")
        )
        other = "photo" if found.georeferenced else "aerial"
        console.print(
            f"augmentation: {found.augmentation} by default ({says}): crops are {changes}; a recipe's 'augmentation: "
            f"{other}' changes that",
            markup=False,
        )
    if found.unused:
        console.print(f"{found.unused} images belong to no part of the split", markup=False)
