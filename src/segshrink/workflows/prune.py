"""A smaller copy of a trained model, what it saves, and the original as its teacher."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from segshrink.compression.pruning.prune import prune as prune_channels
from segshrink.compression.pruning.width_scaling import shrink
from segshrink.config import DatasetDescription, Recipe, as_recipe, load_dataset
from segshrink.data import open_dataset
from segshrink.data.calibration import example_pixels
from segshrink.data.user_dataset import recipe_with_files
from segshrink.errors import FileError, ModelError, UsageError
from segshrink.files import refuse_foreign, writing
from segshrink.folder_lock import claimed
from segshrink.model_file import CONFIG_FILE, MODEL_FOLDER_NAME, keras_path
from segshrink.models import SegmentationModel, load_model
from segshrink.models.folder import MODEL_FOLDER
from segshrink.profiling.profile import profile_models
from segshrink.run_folder import RunFolder
from segshrink.training.hardware import use_free_threads
from segshrink.user_code import trusted_functions
from segshrink.workflows.distill import DistillResult, distill, refuse_foreign_runs
from segshrink.workflows.progress import Progress, silent

_RUNS = 10
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Target:
    """How small a copy is to be; see ``prune``."""

    width: float | None
    depth: float | None
    ratio: float | None
    macs: float | None
    parameters: float | None
    size: int
    steps: int

    def __post_init__(self) -> None:
        shapes = [f"--{name}" for name in ("width", "depth") if getattr(self, name) is not None]
        targets = [f"--{name}" for name in ("ratio", "macs", "parameters") if getattr(self, name) is not None]
        if len(targets) + bool(shapes) != 1:
            raise UsageError(
                "give --width or --depth or both, or one of --ratio, --macs and --parameters, found "
                f"{', '.join([*shapes, *targets]) or 'none'}"
            )
        if self.size < 1:
            raise UsageError(f"--size must be at least 1, found {self.size}")

    def apply(self, model: SegmentationModel, images: torch.Tensor | None, progress: Progress) -> SegmentationModel:
        """Return the smaller copy."""
        if self.width is not None or self.depth is not None:
            width, depth = (1.0 if share is None else share for share in (self.width, self.depth))
            return shrink(model, width=width, depth=depth, images=images)
        return prune_channels(
            model,
            ratio=self.ratio,
            macs=self.macs,
            parameters=self.parameters,
            steps=self.steps,
            size=self.size,
            images=images,
            progress=partial(progress, "prune"),
        )


@dataclass(frozen=True)
class PruneResult:
    """A smaller copy of a model.

    Attributes:
        folder: The copy's model folder.
        original: What the model costs here, as ``profile_model`` gives it.
        copy: What the copy costs here, measured in turns with the model.
        distilled: The copy after it learned from the model; None without a recipe.
    """

    folder: Path
    original: dict[str, Any] | None
    copy: dict[str, Any] | None
    distilled: DistillResult | None = None


def prune(
    model: str | Path,
    *,
    out: str | Path,
    width: float | None = None,
    depth: float | None = None,
    ratio: float | None = None,
    macs: float | None = None,
    parameters: float | None = None,
    size: int = 512,
    steps: int = 5,
    data: DatasetDescription | str | Path | None = None,
    recipe: Recipe | str | Path | None = None,
    control: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> PruneResult:
    """Write a smaller copy of a trained model; with a recipe the model then teaches it.

    Args:
        model: Run folder or model folder, or a Keras file of the tutorials' U-Net.
        out: Model folder to write, with a recipe a run folder that has the copy in ``pruned/``.
        width: Share of the channels that every layer keeps, above 0 up to 1; may be given with ``depth``.
        depth: Share of the removable residual blocks to keep, 0 to 1.
        ratio: Share of all channels to remove, wherever they matter least, 0 to 1; this, ``macs`` or ``parameters``
            alone, or ``width`` and ``depth``.
        macs: Multiply-accumulates to come down to.
        parameters: Parameters to come down to.
        size: Side in pixels of the image whose multiply-accumulates are counted.
        steps: Number of pruning steps.
        data: Data set whose images say which channels matter; with a recipe its own is taken.
        recipe: How the model teaches the copy.
        control: Also train the copy without the model.
        resume: Go on with an interrupted run in ``out``.
        overwrite: Replace what this program didn't write.
        progress: Told how far each stage has come.

    Raises:
        UsageError: Nothing or too much is asked for.
        ConfigError: The recipe is wrong, or the data set has no images.
        FileError: There is no model, or ``out`` is the model itself or something else.
        ModelError: The model can't be made as small.
    """
    source, out = keras_path(model) or Path(model), Path(out)
    target = _Target(width, depth, ratio, macs, parameters, size, steps)
    if recipe is not None:
        taught = recipe_with_files(as_recipe(recipe))
        with trusted_functions(*taught.functions):
            return _taught_copy(
                source, target, out, taught, control=control, resume=resume, overwrite=overwrite, progress=progress
            )
    if control or resume:
        raise UsageError("--control and --resume are about training the copy; give a recipe for that with --recipe")
    if out.resolve() in (source.resolve(), (source / MODEL_FOLDER_NAME).resolve()) and not overwrite:
        raise FileError(
            f"{out} is the model itself, which its copy doesn't replace; choose another folder, or allow it with "
            "--overwrite"
        )
    with claimed(out):
        if (out / CONFIG_FILE).exists():
            _LOGGER.warning("the model in %s is replaced", out)
        described = load_dataset(Path(data)) if isinstance(data, str | Path) else data
        original, copy = _write_copy(source, out, target, described, overwrite=overwrite, progress=progress)
    _LOGGER.warning(
        "%s has lost accuracy until the original teaches it: segshrink distill RECIPE --teacher %s --student %s "
        "--out RUN",
        out,
        source,
        out,
    )
    return PruneResult(out, original, copy)


def _taught_copy(
    source: Path,
    target: _Target,
    out: Path,
    recipe: Recipe,
    *,
    control: bool,
    resume: bool,
    overwrite: bool,
    progress: Progress,
) -> PruneResult:
    copy = out / "pruned"
    overrides = [
        f"student.model={json.dumps({'id': str(copy.resolve())})}",
        f"distillation.teachers={json.dumps([{'source': str(source.resolve())}])}",
        "distillation.inherit_encoder=false",
    ]
    with claimed(out):
        refuse_foreign_runs(out)
        recipe = recipe_with_files(as_recipe(recipe, overrides))
        if not resume:
            RunFolder(out).refuse_begun()
        before, after = None, None
        if not (resume and (copy / CONFIG_FILE).exists()):
            before, after = _write_copy(source, copy, target, recipe.data, overwrite=overwrite, progress=progress)
        distilled = distill(recipe, out=out, control=control, resume=resume, progress=progress)
    return PruneResult(copy, before, after, distilled)


def _write_copy(
    source: Path,
    out: Path,
    target: _Target,
    description: DatasetDescription | None,
    *,
    overwrite: bool,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the copy; return what the model and the copy cost here."""
    refuse_foreign(out, overwrite=overwrite, kind=MODEL_FOLDER)
    use_free_threads()
    model = load_model(source).eval()
    images = None
    if description is not None:
        images = torch.from_numpy(example_pixels(open_dataset(description)))
        if images.shape[1] != model.description.bands:
            raise ModelError(
                f"the model takes {model.description.bands} bands but the images of '{description.name}' have "
                f"{images.shape[1]}; give images like those that it was trained on"
            )
    smaller = target.apply(model, images, progress)
    with writing(out):
        smaller.save(out, overwrite=overwrite)
    profiles = profile_models(
        {"original": model, "copy": smaller},
        size=target.size,
        runs=_RUNS,
        progress=partial(progress, "measure speed"),
    )
    return profiles["original"], profiles["copy"]
