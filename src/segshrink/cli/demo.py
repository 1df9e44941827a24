"""``segshrink demo``: everything once, on generated scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for scenes, runs and report.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", help="Of scenes and trainings.", min=0)] = 0,
) -> None:
    """Run everything once on generated scenes.

    Generates aerial scenes, trains teacher, student and control, compares them, segments a scene, exports the student.
    Interrupted, the same command goes on where it stopped.
    """
    from segshrink.cli._console import out_console
    from segshrink.cli._demo import run_demo
    from segshrink.cli._tables import print_comparison

    made = run_demo(out, seed=seed)
    print_comparison(made.page)
    console = out_console()
    console.print(f"scenes: {made.data.parent} ({made.data.name} describes them)", markup=False)
    console.print(f"a segmented scene: {made.overlay}", markup=False)
    console.print(f"the student for any runtime: {made.onnx}", markup=False)
