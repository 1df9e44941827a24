"""The images of a training, decoded, and whether they can teach and judge."""

from __future__ import annotations

import logging

from segshrink.classes import IGNORE_INDEX
from segshrink.config import Learner, Recipe
from segshrink.data import CropModule, Dataset, absent_classes
from segshrink.errors import ConfigError, DataError
from segshrink.run_records import Role
from segshrink.training.consistency import recolored
from segshrink.training.hardware import check_memory

_LOGGER = logging.getLogger(__name__)


def load_data(recipe: Recipe, role: Role, learner: Learner, dataset: Dataset, *, use_unlabeled: bool) -> CropModule:
    """Decode the images of a data set.

    Args:
        recipe: Says how crops are drawn and changed.
        role: What is trained.
        learner: The recipe's section of it.
        dataset: The images.
        use_unlabeled: Whether those without masks join.

    Raises:
        ConfigError: Crops need more memory than there is, or there are no unlabeled images to learn consistency from.
        DataError: No training image has a mask where labels teach; no validation scene has a labeled pixel.
        FileError: An image is missing or damaged.
    """
    check_memory(recipe.crops, bands=dataset.bands, classes=len(dataset.classes))
    if role != "student" and not dataset.labeled:
        name, remedy = dataset.description.name, "give some, or distill from a teacher that is there"
        raise DataError(f"no training image of '{name}' has a mask, and a {role} learns from masks; {remedy}")
    if learner.consistency is not None and not dataset.unlabeled:
        raise ConfigError(
            f"'consistency' learns from unlabeled images, but '{dataset.description.name}' has none; name some "
            "under data.unlabeled, or leave it out"
        )
    data = CropModule(
        dataset,
        crops=recipe.crops,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
        use_unlabeled=use_unlabeled,
        recolored=None if learner.consistency is None else recolored(learner.consistency),
    )
    data.setup("fit")
    masks = (data.val_store.mask(number) for number in range(len(data.val_store)))
    if all((mask == IGNORE_INDEX).all() for mask in masks):
        raise DataError(
            f"none of the {len(data.val_store)} validation scenes of '{dataset.description.name}' has a labeled "
            "pixel, so nothing can judge a training; check the val split and what the masks 'ignore'"
        )
    if absent := ", ".join(absent_classes(data.train_store, allowed=recipe.data.allow_absent)):
        _LOGGER.warning(
            "no training mask holds %s, so it isn't learned; correct its color or value, or write allow_absent: [%s]",
            absent,
            absent,
        )
    return data
