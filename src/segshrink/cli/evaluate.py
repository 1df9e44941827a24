"""``segshrink evaluate``: scores of a model on every pixel of a data set's split."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from segshrink.cli._options import AsJson, Overwrite


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Run folder, bank, model folder or exported file.", show_default=False),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", "-d", help="Data set description (YAML); a run folder knows its own.", show_default=False
        ),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option("--split", help="Part of the data set.")] = "val",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for evaluation.json and pictures.", show_default=False),
    ] = None,
    border: Annotated[
        int | None,
        typer.Option(
            "--border",
            min=1,
            help="Score the pixels further than this many pixels from label borders, too.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score a model on a data set.

    Every pixel of every image, at native resolution with overlapping tiles.
    """
    from segshrink.cli._console import print_json, progress_bars
    from segshrink.cli._tables import print_scores
    from segshrink.evaluation import described_data
    from segshrink.files import writing
    from segshrink.model_file import FOLDER, ModelFile
    from segshrink.run_folder import RunFolder

    description = described_data(model, data)
    bank = RunFolder(model).has_bank
    if bank or ModelFile.find(model).kind == FOLDER:
        from segshrink.training.hardware import use_free_threads

        use_free_threads()
    from segshrink.evaluation import evaluate as score
    from segshrink.teachers import open_bank

    with progress_bars() as progress, writing(out or Path()):
        result = score(
            open_bank(model, out_of_fold=split == "train") if bank else model,
            description,
            split,
            out=out,
            name=model.name,
            border=border,
            overwrite=overwrite,
            progress=partial(progress, f"evaluate {split}"),
        )
    if as_json:
        print_json(result.to_json())
    else:
        print_scores(result)
