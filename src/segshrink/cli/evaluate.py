"""``segshrink evaluate``: scores of a model on every pixel of a data set's split."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from segshrink.cli._options import AsJson, Overwrite, OwnData, Split, Trust


def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Run folder, bank, model folder, Keras or exported file; of several each is scored, and their "
            "average.",
        ),
    ],
    data: OwnData = None,
    split: Split = "val",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for evaluation.json and pictures; of several models for a folder of each, and average/.",
        ),
    ] = None,
    border: Annotated[
        int | None, typer.Option(min=1, help="Score the pixels further than this many pixels from label borders, too.")
    ] = None,
    trust: Trust = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score a model on a data set.

    Every pixel of every image, at native resolution with overlapping tiles.
    """
    from segshrink.cli._console import print_json, progress_bars
    from segshrink.cli._tables import print_averages, print_scores
    from segshrink.cli._trust import trusting
    from segshrink.evaluation import described_data
    from segshrink.evaluation import evaluate as score
    from segshrink.files import writing

    description = described_data(models[0], data)
    folders = _folders(models, out)
    with progress_bars() as progress, writing(out or Path()), trusting(*models, trust=trust):
        opened = [_opened(model, split, trust=trust) for model in models]
        asked = [*opened, opened] if len(opened) > 1 else opened
        results = {
            name: score(
                model,
                description,
                split,
                out=folder,
                name=name,
                border=border,
                overwrite=overwrite,
                progress=partial(progress, f"evaluate {name} on {split}" if len(asked) > 1 else f"evaluate {split}"),
            )
            for model, (name, folder) in zip(asked, folders.items(), strict=True)
        }
    if as_json:
        parts = {name: result.to_json() for name, result in results.items()}
        print_json(parts if len(parts) > 1 else next(iter(parts.values())))
    elif len(results) > 1:
        print_averages(results)
    else:
        print_scores(next(iter(results.values())))


def _folders(models: list[Path], out: Path | None) -> dict[str, Path | None]:
    """Return by its name where each model's evaluation goes, and the average's."""
    if len(models) == 1:
        return {models[0].name: out}
    names = [model.name for model in models]
    if "average" in names or len(set(names)) < len(names):
        names = [f"{place}-{name}" for place, name in enumerate(names, start=1)]
    return {name: out and out / name for name in (*names, "average")}


def _opened(model: Path, split: str, *, trust: bool) -> Any:
    """Open a bank, whose members answer about training images that they have not seen, and a trusted Keras file."""
    from segshrink.cli._trust import opened_if_trusted
    from segshrink.model_file import ModelFile
    from segshrink.run_folder import RunFolder

    bank = RunFolder(model).has_bank
    if bank or ModelFile.find(model).is_torch:
        from segshrink.training.hardware import use_free_threads

        use_free_threads()
    if not bank:
        return opened_if_trusted(model, trust=trust)
    from segshrink.teachers import open_bank

    return open_bank(model, out_of_fold=split == "train")
