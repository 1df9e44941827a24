"""``segshrink watch``: a training that runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a training.")],
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 5.0,
) -> None:
    """Follow a training that runs elsewhere.

    Prints a line for every epoch, with losses, validation mIoU and the time left, until the training ends; of a bank,
    for one teacher after the other.
    """
    from segshrink.cli._console import out_console
    from segshrink.formatting import duration
    from segshrink.workflows.watch import watch as states_of

    console = out_console()
    for state in states_of(run, every=every):
        latest = state.latest
        which = "" if state.folder == run else f"{state.folder.name}: "
        parts = [f"{which}epoch {state.epoch}/{state.epochs}"]
        named = (("loss", "train/loss"), ("val loss", "val/loss"), ("val mIoU", "val/mean_iou"))
        parts += [f"{name} {latest[key]:.3f}" for name, key in named if key in latest]
        if state.seconds_left is not None:
            parts.append(f"{duration(state.seconds_left)} left")
        if state.status != "running":
            parts.append(f"{state.status} after {duration(state.seconds)}")
        console.print(", ".join(parts))
