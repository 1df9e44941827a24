"""``segshrink distill``: a small student learns from a big teacher."""

from __future__ import annotations

from typing import Annotated

import typer

from segshrink.cli._launch import took_part
from segshrink.cli._options import Data, Overrides, RecipeFile, Resume, RunOut, run_of


def distill(
    recipe: RecipeFile,
    out: RunOut = None,
    overrides: Overrides = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            "-t",
            help="Run or model folder, smp:..., torchvision:..., hf:..., onnx:FILE, tflite:FILE, keras:FILE, "
            "labels:FOLDER or module:function, instead of the recipe's teachers; several are averaged.",
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option("--student", "-s", help="Network id instead of the recipe's student.")
    ] = None,
    data: Data = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also train the same student without the teacher, and compare.")
    ] = False,
    resume: Resume = False,
    time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Choose the steps so that all of it ends in this time, such as 2h or 90m."),
    ] = None,
    doctor: Annotated[
        bool, typer.Option("--doctor/--no-doctor", help="Look for the usual faults on a few crops first.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where the teacher leads the control by too little to be copied.")
    ] = False,
) -> None:
    """Teach a small student with a big teacher.

    Trains the recipe's student, measures it and its teacher, and writes the report. Where neither recipe nor command
    names a teacher, the recipe's own is trained first. With --control the control comes before the student: where the
    teacher hardly knows more than it does, there is little to distil, and the command ends with status 1.

    Inside OUT: the student's run; control/ and teacher-run/ where they are trained; teacher/, the teacher's measures.
    """
    from segshrink.config import distillation_overrides, load_recipe

    loaded = load_recipe(recipe, [*distillation_overrides(teacher or (), student), *(overrides or ())], data)
    if took_part(loaded, loaded.student):
        return
    from segshrink.cli._console import progress_bars
    from segshrink.cli._tables import print_comparison
    from segshrink.workflows.distill import distill as run_distillation

    with progress_bars() as progress:
        result = run_distillation(
            loaded,
            out=out or run_of(loaded),
            control=control,
            resume=resume,
            doctor=doctor,
            force=force,
            time=time,
            progress=progress,
        )
    print_comparison(result.report)
