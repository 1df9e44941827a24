"""Experiment trackers that follow a training beside ``metrics.csv``: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from PIL import Image

from segshrink.classes import ClassMap
from segshrink.config import NamedOptions, Recipe
from segshrink.errors import ConfigError, MissingExtraError, first_line
from segshrink.imagery import to_display

# Validation scenes whose pictures are tracked, and their longest side.
_SCENES, _SIDE = 4, 384


def build_trackers(recipe: Recipe, folder: Path, role: str) -> list[Logger]:
    """Open the trackers that a recipe names; each is told the recipe.

    Args:
        recipe: What is trained.
        folder: Run folder, in which trackers write that need no server.
        role: Which of the recipe's networks.

    Raises:
        ConfigError: A tracker refuses its options, or can't write or reach its server.
        MissingExtraError: Its package isn't installed.
    """
    return [_build(choice, recipe, folder, role) for choice in recipe.trackers]


def _build(choice: NamedOptions, recipe: Recipe, folder: Path, role: str) -> Logger:
    from lightning.pytorch import loggers

    name = recipe.name
    usual: dict[str, dict[str, Any]] = {
        "tensorboard": {"save_dir": folder / "tensorboard", "name": "", "version": ""},
        "mlflow": {"experiment_name": name, "run_name": f"{folder.name} ({role})", **_mlflow_place(folder)},
        "wandb": {"project": name, "name": f"{folder.name} ({role})", "save_dir": folder},
    }
    kinds = {"tensorboard": "TensorBoardLogger", "mlflow": "MLFlowLogger", "wandb": "WandbLogger"}
    try:
        logger: Logger = getattr(loggers, kinds[choice.name])(**usual[choice.name] | choice.options)
        logger.log_hyperparams(_flat(recipe.model_dump(mode="json", exclude_defaults=True)))
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the tracker {choice.name}", "trackers") from error
    except Exception as error:  # anything may go wrong in a foreign program
        raise ConfigError(
            f"tracker '{choice.name}' can't be used: {first_line(error)}; correct its options, see that its server can "
            "be reached, or leave it out of 'trackers'"
        ) from error
    return logger


def _mlflow_place(folder: Path) -> dict[str, Any]:
    """Return where MLflow keeps runs: where its own variable says, else in a database in the run folder."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        return {"tracking_uri": os.environ["MLFLOW_TRACKING_URI"]}
    place = (folder / "mlflow").resolve()
    return {"tracking_uri": f"sqlite:///{place}.db", "artifact_location": place.as_uri()}


class ScenePictures(Callback):
    """Tracks the first validation scenes, image, truth and prediction side by side, whenever scenes are scored.

    Args:
        classes: The classes, whose colors the masks take.
    """

    def __init__(self, classes: ClassMap) -> None:
        self._classes = classes
        self._pictures: dict[str, NDArray[np.uint8]] = {}

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the picture of a scene that was scored just now."""
        if outputs is not None and len(self._pictures) < _SCENES:
            masks = (self._classes.colorize(index) for index in (batch["target"], outputs))
            parts = [to_display(batch["image"]), *masks]
            self._pictures[batch["name"]] = np.concatenate([_shrunk(part) for part in parts], axis=1)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Hand the pictures to every tracker."""
        for logger in trainer.loggers:
            for name, picture in self._pictures.items():
                _track(logger, name, picture, trainer.global_step)
        self._pictures = {}


def _track(logger: Logger, name: str, picture: NDArray[np.uint8], step: int) -> None:
    kind = type(logger).__name__
    if kind == "TensorBoardLogger":
        logger.experiment.add_image(f"val/{name}", picture, step, dataformats="HWC")  # type: ignore[attr-defined]
    elif kind == "MLFlowLogger":
        logger.experiment.log_image(logger.run_id, picture, f"val/{name}-{step:07d}.png")  # type: ignore[attr-defined]
    elif kind == "WandbLogger":
        logger.log_image(f"val/{name}", [picture])  # type: ignore[attr-defined]


def _shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE))
    return np.asarray(image)


def _flat(content: Any, place: Sequence[str] = ()) -> dict[str, Any]:
    """Return a recipe's values by their places; lists are one value."""
    if isinstance(content, dict) and content:
        return {key: value for name, part in content.items() for key, value in _flat(part, (*place, str(name))).items()}
    return {".".join(place): content if isinstance(content, str | int | float | bool) else str(content)[:250]}
