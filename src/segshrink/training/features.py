"""The taps on student and teacher, set for the length of a fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from segshrink.config import Adapter, Learner, Recipe
from segshrink.data import Dataset
from segshrink.errors import ConfigError, ModelError
from segshrink.losses import Term, WeightedTerm
from segshrink.model_description import Normalization
from segshrink.models import SegmentationModel, Taps, tap_shapes
from segshrink.models.adapters import WEIGHTS_OPTION
from segshrink.teachers.torch_teacher import AdaptedNetwork
from segshrink.training.build_student import build_chosen


class TapPair:
    """Taps on student and teacher, for terms that compare features.

    Args:
        student: The model that learns.
        teacher: The teacher's network.
        terms: Name what is tapped.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, terms: Iterable[Term]) -> None:
        students, teachers = _names(terms)
        with ExitStack() as stack:
            self._student = stack.enter_context(Taps(student, students))
            self._teacher = stack.enter_context(Taps(teacher, teachers))
            stack.pop_all()

    def of(self, term: Term) -> tuple[Tensor, Tensor]:
        """Return what student and teacher showed at the term's taps in their last forward."""
        return self._student.features[str(term.student)], self._teacher.features[str(term.teacher)]

    def clear(self) -> None:
        """Drop the features, and with them the graph that they hold."""
        self._student.clear()
        self._teacher.clear()

    def close(self) -> None:
        """Remove the taps."""
        self._student.close()
        self._teacher.close()


def feature_channels(
    student: nn.Module, teacher: nn.Module, terms: Iterable[Term], *, bands: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the channels of student and teacher by tap, from a dry run of both.

    Raises:
        ConfigError: A tap doesn't exist or gives no feature map; says on which side.
    """
    found = []
    for side, network, names in zip(("student", "teacher"), (student, teacher), _names(terms), strict=True):
        try:
            shapes = tap_shapes(network, names, bands=bands)
        except ModelError as error:
            raise ConfigError(f"a loss term can't take its '{side}' features: {error}") from error
        found.append({name: shape[0] for name, shape in shapes.items()})
    return found[0], found[1]


def check_own_taps(recipe: Recipe, terms: Iterable[WeightedTerm], dataset: Dataset) -> None:
    """Refuse taps that the recipe's student or its own teacher doesn't have, before the teacher is trained.

    Raises:
        ConfigError: A tap doesn't exist or gives no feature map; says on which side.
    """
    on_features = [term for _, term in terms if term.on_features]
    if not on_features or recipe.teacher is None or recipe.student is None:
        return
    student, teacher = (_untrained(learner, dataset) for learner in (recipe.student, recipe.teacher))
    feature_channels(student, teacher, on_features, bands=dataset.bands)


def check_aligned(images: Tensor, student: nn.Module, teacher: nn.Module) -> None:
    """Refuse crops in which the features of the two networks don't lie over each other, and over the labels.

    Raises:
        ConfigError: A network pads the crops, or an adapter cuts or letterboxes them; names the sizes that fit.
    """
    height, width = images.shape[-2:]
    if isinstance(teacher, AdaptedNetwork):
        _check_fitting(teacher.adapter, height, width)
        # At a size of its own the network sees the whole crop, stretched.
        teacher = teacher.network if teacher.adapter.size is None else nn.Identity()
    strides = [each.description.stride for each in (student, teacher) if isinstance(each, SegmentationModel)]
    multiple, least = math.lcm(1, *strides), 2 * max(strides, default=0)
    if height % multiple or width % multiple or min(height, width) < least:
        raise ConfigError(
            f"features of student and teacher don't lie over each other in crops of {height} × {width} pixels, which "
            f"are padded; set crops.size to a multiple of {multiple} of at least {least}"
        )


def _untrained(learner: Learner, dataset: Dataset) -> SegmentationModel:
    """Build a recipe's network without the weights that it starts from."""
    choice = learner.model
    options = {name: value for name, value in choice.options.items() if name != WEIGHTS_OPTION}
    bare = choice.model_copy(update={"options": options, "encoder_weights": None})
    with torch.random.fork_rng(devices=[]):
        return build_chosen(bare, dataset, lambda: Normalization.named("imagenet", dataset.bands))


def _check_fitting(adapter: Adapter, height: int, width: int) -> None:
    if adapter.size is None:
        return
    rows, columns = (adapter.size, adapter.size) if isinstance(adapter.size, int) else adapter.size
    whole = adapter.fit == "stretch" or (adapter.fit == "letterbox" and height * columns == width * rows)
    if not whole and (rows, columns) != (height, width):
        done = "cuts" if adapter.fit == "tile" else "letterboxes"
        raise ConfigError(
            f"the teacher's adapter {done} crops of {height} × {width} pixels to {rows} × {columns}, so its features "
            "don't lie over the student's; write 'fit: stretch' there, or take terms on logits"
        )


def _names(terms: Iterable[Term]) -> tuple[list[str], list[str]]:
    terms = list(terms)
    return [str(term.student) for term in terms], [str(term.teacher) for term in terms]
