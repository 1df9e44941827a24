"""Evaluation of whatever the user names: a run folder, a model folder or an exported file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segshrink.config import DatasetDescription
from segshrink.errors import FileError
from segshrink.evaluation import Evaluation, evaluate
from segshrink.model_file import FOLDER, ModelFile


def evaluate_source(
    source: Path,
    data: DatasetDescription,
    *,
    split: str,
    out: Path | None,
    overwrite: bool = False,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Score a model on a split of a data set.

    Args:
        source: Run folder, model folder or exported file (``.onnx``, ``.xml``, ``.tflite``).
        data: The data set.
        split: "train", "val" or "test".
        out: Folder for ``evaluation.json`` and pictures; None writes nothing.
        overwrite: Replace what another evaluation or somebody else wrote there.
        progress: Called after every scene with (scenes done, scenes in all).

    Raises:
        FileError: ``out`` is the run folder of another model.
    """
    own = out is not None and source.resolve() in (out.resolve(), (out / "model").resolve())
    if out is not None and not own and not overwrite and (out / "run.json").exists():
        raise FileError(
            f"{out} is the run folder of another model than {source}, whose scores are not replaced; choose another "
            "folder, or allow it with --overwrite"
        )
    if ModelFile.find(source).kind == FOLDER:
        from segshrink.cli._work import use_free_threads

        use_free_threads()
    return evaluate(source, data, split, out=out, overwrite=overwrite, progress=progress)
