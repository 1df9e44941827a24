"""The network that a recipe chooses, as it stands before its training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from segshrink.config import ModelChoice
from segshrink.config.recipe import is_folder
from segshrink.data import CropModule, Dataset, image_statistics, refuse_other_bands, training_distribution
from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.formatting import listing
from segshrink.library import located
from segshrink.model_description import Normalization
from segshrink.models import SegmentationModel, build_model, inherit_encoder, load_model
from segshrink.models.class_change import with_classes
from segshrink.models.imagenet_hubs import IMAGENET, may_have_imagenet_weights
from segshrink.teachers import Teacher
from segshrink.teachers.mapping import map_classes
from segshrink.user_code import is_function, is_trusted

_LOGGER = logging.getLogger(__name__)


def build_chosen(choice: ModelChoice, dataset: Dataset, statistics: Callable[[], Normalization]) -> SegmentationModel:
    """Build a network by id, or load the model of a folder or file with its weights and normalization.

    Args:
        choice: What the recipe says.
        dataset: The data set, which says classes and bands.
        statistics: Gives mean and deviation of the training images, where they are asked for.

    Raises:
        ConfigError: A folder is named together with what only a new network takes; or a function that the user
            didn't, see ``trusted_functions``.
        FileError: There is no such folder, or a file of it is missing.
        ModelError: The id is unknown, the folder damaged, or its model has other classes or bands.
    """
    if is_folder(choice.id) or choice.start is not None:
        return _load(choice, dataset)
    if is_function(choice.id) and not is_trusted(choice.id):
        raise ConfigError(
            f"the run's recipe makes its network by the code of '{choice.id}', which isn't run unasked; give --trust "
            "or a recipe of your own that names it, if you trust it"
        )
    by_data = choice.normalization == "data"
    return build_model(
        choice.id,
        dataset.classes,
        bands=dataset.bands,
        options=choice.options,
        normalization=statistics() if by_data else Normalization.named(choice.normalization, dataset.bands),
        encoder_weights=choice.encoder_weights,
        sigmoid=choice.sigmoid,
    )


def build_for_data(choice: ModelChoice, data: CropModule) -> SegmentationModel:
    """Build a network as ``build_chosen`` does, described with what the data set's files say of their pixels.

    It takes images as the data set's crops are, at the working size if there is one.
    """
    dataset = data.dataset
    model = build_chosen(choice, dataset, lambda: image_statistics(data.train_store))
    model.description = replace(
        model.description,
        dtype=dataset.dtype,
        band_names=dataset.band_names or model.description.band_names,
        scaling=dataset.scaling or model.description.scaling,
        resolution=dataset.resolution or model.description.resolution,
        resize=None,
        images=training_distribution((data.train_store, data.unlabeled_store)),
    )
    return model


def check_chosen(choice: ModelChoice, dataset: Dataset) -> None:
    """Refuse a network that can't be built, before anything takes long.

    Raises:
        ConfigError: As ``build_chosen``.
        FileError: As ``build_chosen``.
        ModelError: As ``build_chosen``.
    """
    if choice.encoder_weights == IMAGENET:  # which are loaded, and told of, when the network is trained
        choice = choice.model_copy(update={"encoder_weights": None})
    build_chosen(choice, dataset, lambda: Normalization.named("half", dataset.bands))


def check_teacher_bands(teacher: Teacher, dataset: Dataset) -> None:
    """Refuse teachers of segshrink that learned from other bands, or from the same in another order.

    Raises:
        ModelError: The bands of one have other names than the data set's.
    """
    for part in teacher.parts:
        check_teacher_bands(part, dataset)
    if isinstance(teacher.module, SegmentationModel):
        refuse_other_bands(teacher.module.description, dataset)


def tell_random_start(choice: ModelChoice) -> None:
    """Say so where nothing but chance says what a network's weights are at first."""
    own = choice.start is not None or is_folder(choice.id) or is_function(choice.id)
    brought = own or choice.id.startswith("hf:") or "weights" in choice.options
    if choice.encoder_weights is None and not brought:
        remedy = "; encoder_weights: imagenet starts it from ImageNet's" if may_have_imagenet_weights(choice.id) else ""
        _LOGGER.warning("%s starts from random weights%s", choice.id, remedy)


def inherit_from(student: SegmentationModel, teacher: Teacher) -> None:
    """Start the student's encoder from the teacher's."""
    if teacher.module is None:
        raise ConfigError(
            f"distillation.inherit_encoder needs a teacher whose weights can be read, and {teacher.name} is a black "
            "box; set it to false"
        )
    try:
        inherit_encoder(student.network, teacher.module)
    except ModelError as error:
        raise ConfigError(f"distillation.inherit_encoder: {error}; or set it to false") from error


def _load(choice: ModelChoice, dataset: Dataset) -> SegmentationModel:
    folder = Path(located(choice.id))
    if not folder.exists():
        raise FileError(f"no model folder at {folder}; give a model folder, a run folder or a network id")
    for name, given in (
        ("options", bool(choice.options)),
        ("encoder_weights", choice.encoder_weights is not None),
        ("normalization", choice.normalization != "data"),
        ("sigmoid", choice.sigmoid),
    ):
        if given:
            raise ConfigError(f"the model in {folder} brings its own '{name}'; leave it out of the recipe")
    if choice.start is not None:
        return _with_classes_of(dataset, load_model(folder, bands=dataset.bands), choice).train()
    model = load_model(folder, classes=dataset.classes, bands=dataset.bands)
    if model.description.classes.names != dataset.classes.names:
        raise ModelError(
            f"the model in {folder} has its classes in the order {', '.join(model.description.classes.names)}, the "
            f"data set in the order {', '.join(dataset.classes.names)}; list them alike"
        )
    return model.train()


def _with_classes_of(dataset: Dataset, model: SegmentationModel, choice: ModelChoice) -> SegmentationModel:
    """Return a trained model for a data set's classes, which come from its own by name, label or as the recipe says."""
    old = model.description.classes.names
    known = {name.casefold() for name in old}
    merged = {
        entry.name: [name for name in (entry.name, *entry.labels) if name.casefold() in known]
        for entry in dataset.description.classes
    }
    aliases = {name: names for name, names in merged.items() if names} | choice.start_classes
    sources: Sequence[Sequence[int]] = [()] * len(dataset.classes)
    # Published weights were made for other data: a network without a head is worth starting from.
    if aliases or Path(str(choice.start)).is_dir():
        sources = map_classes(dataset.classes.names, old, aliases, name=f"the model in {choice.start}").channels
    fresh = [name for name, group in zip(dataset.classes.names, sources, strict=True) if not group]
    if fresh:
        _LOGGER.info("%s: %s in no class of it, so learned anew", choice.start, listing(fresh))
    return with_classes(model, dataset.classes, sources)
