"""``segshrink distill``: a small student learns from a big teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from segshrink.cli._options import Data, Overrides, RecipeFile, Resume


def distill(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder to write.", show_default=False)],
    overrides: Overrides = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            "-t",
            help="Run or model folder, smp:..., torchvision:..., hf:..., onnx:FILE, tflite:FILE, labels:FOLDER or "
            "module:function, instead of the recipe's teachers; several are averaged.",
            show_default=False,
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option("--student", "-s", help="Network id instead of the recipe's student.", show_default=False),
    ] = None,
    data: Data = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also train the same student without the teacher, and compare.")
    ] = False,
    resume: Resume = False,
    doctor: Annotated[
        bool, typer.Option("--doctor/--no-doctor", help="Look for the usual faults on a few crops first.")
    ] = True,
) -> None:
    """Teach a small student with a big teacher.

    Trains the recipe's student, measures it and its teacher, and writes the report. Where neither recipe nor command
    names a teacher, the recipe's own is trained first.

    Inside OUT: the student's run; control/ and teacher-run/ where they are trained; teacher/, the teacher's measures.
    """
    from segshrink.config import load_recipe

    # Options and weights of the recipe's student belong to its network, so another network comes without them.
    chosen = [f"student.model={json.dumps({'id': student})}"] if student else []
    if teacher:
        chosen.append(f"distillation.teachers={json.dumps([{'source': source} for source in teacher])}")
    loaded = load_recipe(recipe, [*chosen, *(overrides or ())], data)
    from segshrink.cli._tables import print_comparison
    from segshrink.cli._work import distill_all

    print_comparison(distill_all(loaded, out=out, control=control, resume=resume, doctor=doctor))
