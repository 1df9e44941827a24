"""``segshrink demo``: everything once, on generated scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for scenes, runs and report.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Random seed of the trainings.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Run everything once on generated scenes.

    Generates aerial scenes, trains teacher, student and control, compares them, segments a scene, and ends with the
    student as a small int8 file.
    Interrupted, the same command goes on where it stopped.
    """
    from segshrink.cli._console import out_console, progress_bars
    from segshrink.cli._tables import print_comparison
    from segshrink.workflows.demo import READY
    from segshrink.workflows.demo import demo as run_demo

    with progress_bars() as progress:
        made = run_demo(out, seed=seed, progress=progress)
    print_comparison(made.distilled.report)
    console = out_console()
    console.print(f"scenes: {made.data.parent} ({made.data.name} describes them)")
    console.print(f"a segmented scene: {made.overlay}")
    ready = made.ready.files.overlay or made.ready.files.classes
    remark = f"; {made.ready.misuse.looks_like}" if made.ready.misuse else ""
    console.print(f"the same scene by {READY}, which comes with the package: {ready}{remark}")
    if made.page is not None:
        console.print(f"the student in any browser, on your own images: {made.page}")
    console.print(f"the student for any runtime: {made.onnx}")
    plain, small = made.int8.row("onnxruntime", "fp32"), made.int8.row("onnxruntime", "int8")
    console.print(
        f"the same in int8: {small.file}, {small.bytes / 1e3:.0f} kB instead of {plain.bytes / 1e3:.0f}, mIoU "
        f"{small.mean_iou:.3f} instead of {plain.mean_iou:.3f}, {small.latency_ms:.1f} ms instead of "
        f"{plain.latency_ms:.1f} for 512 x 512 pixels on one thread"
    )
