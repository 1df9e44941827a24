"""A model in 8-bit integers, measured beside float32."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from segshrink.compression.quantization import RUNTIMES, QuantizationResult
from segshrink.compression.quantization import quantize as quantize_model
from segshrink.config import DatasetDescription, Recipe, as_recipe
from segshrink.data.user_dataset import recipe_with_files
from segshrink.evaluation import described_data
from segshrink.files import writing
from segshrink.model_file import ModelFile
from segshrink.models import SegmentationModel, load_model
from segshrink.run_folder import RunFolder
from segshrink.teachers import is_data
from segshrink.training.hardware import use_free_threads
from segshrink.training.lightning_fit import quieten_lightning
from segshrink.user_code import trusted_functions
from segshrink.workflows.progress import Progress, silent

_LOGGER = logging.getLogger(__name__)


def quantize(
    model: SegmentationModel | str | Path,
    data: DatasetDescription | str | Path | None = None,
    *,
    out: str | Path,
    runtimes: Sequence[str] = RUNTIMES,
    max_drop: float = 1.0,
    images: int = 64,
    recipe: Recipe | str | Path | None = None,
    quantization_aware_distillation: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> QuantizationResult:
    """Write a model in 8-bit integers for each runtime, and compare it with float32 on the validation images.

    Args:
        model: Run folder, model folder, Keras or ONNX file, or a model.
        data: The data set, or its description's file; a run folder knows its own.
        out: Folder to write.
        runtimes: Some of "onnxruntime", "openvino" and "litert" (full-integer TFLite).
        max_drop: Points of mIoU that int8 may lose; sensitive layers stay float.
        images: Tiles of 512 x 512 pixels to calibrate with.
        recipe: How to train for 8 bits where int8 loses too much; a run folder knows its own.
        quantization_aware_distillation: Train for 8 bits, with the float32 model as teacher, in any case.
        overwrite: Replace what this program didn't write.
        progress: Told how far each stage has come.

    Raises:
        ConfigError: The data set has no images to calibrate or judge with.
        FileError: There is no model, or ``out`` holds something else.
        ModelError: The model can't be exported.
    """
    folder = Path(model) if isinstance(model, str | Path) else None
    description = data if isinstance(data, DatasetDescription) else described_data(folder or "the model", data)
    quieten_lightning()
    use_free_threads()
    given = None if recipe is None else recipe_with_files(as_recipe(recipe))
    loaded = _own_recipe(folder) if given is None and folder is not None else given
    with writing(Path(out)), trusted_functions(*(given.functions if given else ())):
        return quantize_model(
            _opened(model) if isinstance(model, str | Path) else model,
            description,
            out=Path(out),
            runtimes=runtimes,
            max_drop=max_drop,
            images=images,
            recipe=loaded,
            quantization_aware_distillation=quantization_aware_distillation,
            overwrite=overwrite,
            progress=partial(progress, "quantize"),
        )


def _opened(model: str | Path) -> SegmentationModel | Path:
    file = ModelFile.find(model)
    return load_model(model) if file.is_torch else file.path


def _own_recipe(run: Path) -> Recipe | None:
    """Return the recipe in a run folder, which anybody may have written: without teachers that are more than data."""
    folder = RunFolder(run)
    if not folder.config_file.exists():
        return None
    recipe = folder.recipe()
    if all(is_data(source) for source in recipe.distillation.teachers):
        return recipe
    _LOGGER.warning(
        "the teacher that %s names would run code or ask the network, so the model is its own; see --recipe",
        folder.config_file,
    )
    return recipe.model_copy(update={"distillation": recipe.distillation.model_copy(update={"teachers": []})})
