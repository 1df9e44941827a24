"""``segshrink prune``: a smaller copy of a trained model."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segshrink.cli._options import Model, Overwrite, Resume, Trust
from segshrink.errors import UsageError

if TYPE_CHECKING:
    from segshrink.workflows.prune import PruneResult

_share = partial(typer.Option, min=0, max=1)
_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


def prune(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder, or with --recipe run folder, to write.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of --recipe.")
    ] = None,
    width: Annotated[float | None, _share(help="Share of the channels that every layer keeps, such as 0.5.")] = None,
    depth: Annotated[float | None, _share(help="Share of the removable residual blocks to keep.")] = None,
    ratio: Annotated[float | None, _share(help="Share of all channels to remove, wherever they matter least.")] = None,
    macs: Annotated[str | None, typer.Option(help="Multiply-accumulates to come down to, such as 500M.")] = None,
    parameters: Annotated[str | None, typer.Option(help="Parameters to come down to, such as 1.2M.")] = None,
    size: Annotated[int, typer.Option(help="Side in pixels of the image for --macs.")] = 512,
    steps: Annotated[int, typer.Option(help="Number of pruning steps.")] = 5,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", "-r", help="Recipe (YAML) for distilling the original into the pruned copy."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", "-d", help="Data set (YAML) whose images say what matters, and instead of the recipe's."
        ),
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also train the copy without the original, and compare.")
    ] = False,
    resume: Resume = False,
    trust: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a smaller copy of a trained model.

    Give --width or --depth or both, or one of --ratio, --macs and --parameters. With --recipe the copy then learns
    from the original, and the report compares the two; without it accuracy is lost until it does.
    """
    from segshrink.config import load_recipe

    if recipe is None and overrides:
        raise UsageError(f"'{overrides[0]}' changes a recipe; give one with --recipe")
    wanted_macs, wanted_parameters = _number("--macs", macs), _number("--parameters", parameters)
    loaded = None if recipe is None else load_recipe(recipe, overrides or (), data)
    from segshrink.cli._console import progress_bars
    from segshrink.cli._tables import print_comparison
    from segshrink.cli._trust import trusting
    from segshrink.workflows.prune import prune as make_copy

    with progress_bars() as progress, trusting(model, trust=trust):
        result = make_copy(
            model,
            out=out,
            width=width,
            depth=depth,
            ratio=ratio,
            macs=wanted_macs,
            parameters=wanted_parameters,
            size=size,
            steps=steps,
            data=data,
            recipe=loaded,
            control=control,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
    _print_costs(result)
    if result.distilled is not None:
        print_comparison(result.distilled.report)


def _print_costs(result: PruneResult) -> None:
    """Print what the model and its copy cost here."""
    from segshrink.cli._console import empty_table, out_console, tell
    from segshrink.formatting import percent

    before, after = result.original, result.copy
    if before is None or after is None:
        return
    size, threads, load = before["input"][-1], before["latency_ms"]["threads"], before["load"]
    table = empty_table("", "original", "copy", "share")
    for name, key, form in (
        ("parameters", "parameters", "{:,.0f}"),
        (f"multiply-accumulates at {size} pixels", "macs", "{:,.0f}"),
        ("file in bytes", "file_bytes", "{:,.0f}"),
        (f"milliseconds at {size} pixels (PyTorch, {threads} threads)", "latency_ms", "{:.1f}"),
    ):
        old, new = (profile[key]["median"] if key == "latency_ms" else profile[key] for profile in (before, after))
        table.add_row(name, form.format(old), form.format(new), f"{new / old:.0%}")
    table.add_row("other programs' share of the cores meanwhile", *[percent(load["others"])] * 2, "")
    out_console().print(table)
    if load["busy"]:
        tell(
            "other programs kept the cores busy meanwhile, so the times are too long: measure again on a quiet machine"
        )


def _number(option: str, text: str | None) -> float | None:
    """Read "500M", "1.2M", "64k" or "250000"."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:[._]\d+)*)\s*([KMGB]?)", text.strip().upper())
    try:
        value = float(match[1].replace("_", "")) * _SUFFIXES[match[2]] if match else 0.0
    except ValueError:
        value = 0.0
    if value < 1:
        raise UsageError(f"{option} must be a number such as 500M, 1.2M or 250000, found '{text}'")
    return value
