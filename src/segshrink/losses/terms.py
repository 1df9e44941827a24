"""Losses by name, as recipes write them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from segshrink.classes import IGNORE_INDEX
from segshrink.config import Term as TermChoice
from segshrink.errors import ConfigError, TrainingError, nearest
from segshrink.losses.logits import pixel_kl
from segshrink.losses.supervised import cross_entropy, dice, jaccard

_SUPERVISED: Mapping[str, Callable[..., Tensor]] = {"cross_entropy": cross_entropy, "dice": dice, "jaccard": jaccard}
_DISTILLATION: Mapping[str, Callable[..., Tensor]] = {"pixel_kl": pixel_kl}
# What an option must be, and the text that says so.
_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "label_smoothing": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "smooth": (lambda value: _is_number(value) and value >= 0, "a number of at least 0"),
    "standardize": (lambda value: isinstance(value, bool), "true or false"),
    "class_weights": (lambda value: value is None or _are_weights(value), "a list of numbers of at least 0, not all 0"),
}


@dataclass(frozen=True)
class Term:
    """One loss with its options.

    Attributes:
        name: Name in a recipe, such as ``"pixel_kl"``.
        needs_teacher: Whether the call needs the teacher's logits.
        labels_only: True: only labelled pixels count. False: every pixel inside the scene counts, labelled or not.
        options: The options it was built with.
    """

    name: str
    needs_teacher: bool
    labels_only: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    _loss: Callable[..., Tensor] = field(repr=False, kw_only=True)

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor, inside: Tensor | None = None
    ) -> Tensor:
        """Return the unweighted loss, a float32 scalar (float64 for float64 logits).

        Args:
            student_logits: (N, C, H, W).
            teacher_logits: (N, C, h, w); may be None for a supervised term.
            target: Class indices (N, H, W), 255 where unlabelled.
            inside: Bool (N, H, W), False where a crop reaches outside its scene; None: inside everywhere.

        Raises:
            TrainingError: The term needs a teacher and got none.
            ModelError: Shapes contradict each other.
        """
        if not self.needs_teacher:
            return self._loss(student_logits, target)
        if teacher_logits is None:
            raise TrainingError(f"the loss term '{self.name}' learns from a teacher; give one or drop the term")
        # An ignored label everywhere outside, any other label inside.
        mask = None if inside is None else inside.logical_not() * IGNORE_INDEX
        return self._loss(student_logits, teacher_logits, mask)


class WeightedTerm(NamedTuple):
    """A term and its factor in the total loss."""

    weight: float
    term: Term


def build_term(name: str, options: Mapping[str, Any] | None = None) -> Term:
    """Return the loss term of that name.

    Args:
        name: ``"cross_entropy"``, ``"jaccard"``, ``"dice"`` or ``"pixel_kl"``.
        options: Keyword arguments of the function of that name in ``segshrink.losses``.

    Raises:
        ConfigError: Unknown name, unknown option or an option out of its range.
    """
    supervised = name in _SUPERVISED
    loss = _SUPERVISED.get(name) or _DISTILLATION.get(name)
    if loss is None:
        raise ConfigError(f"unknown loss term '{name}'{nearest(name, [*_SUPERVISED, *_DISTILLATION])}")
    options = dict(options or {})
    parameters = inspect.signature(loss).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "ignore_index"]
    for option, value in options.items():
        if option not in known:
            raise ConfigError(f"loss term '{name}' has no option '{option}'{nearest(option, known)}")
        holds, description = _RULES[option]
        if not holds(value):
            raise ConfigError(f"option '{option}' of loss term '{name}' must be {description}, found {value!r}")
    return Term(name, not supervised, supervised, options, _loss=partial(loss, **options))


def build_terms(choices: Iterable[TermChoice]) -> tuple[WeightedTerm, ...]:
    """Return the terms a recipe lists, in its order; those of weight 0 are left out.

    Raises:
        ConfigError: A term is wrong, or none is left.
    """
    built = [WeightedTerm(choice.weight, build_term(choice.name, choice.options)) for choice in choices]
    kept = tuple(weighted for weighted in built if weighted.weight > 0)
    if not kept:
        raise ConfigError(
            "the list of loss terms is empty or all weights are 0; give at least one term a weight above 0"
        )
    return kept


def terms_from(alpha: float, temperature: float) -> tuple[WeightedTerm, ...]:
    """Return ``alpha · cross_entropy + (1 − alpha) · pixel_kl`` at that temperature.

    Args:
        alpha: Share of the true-label loss, from 0 to 1; a share of 0 leaves its term out.
        temperature: Temperature of both sides of the distillation loss, above 0.

    Raises:
        ConfigError: A value out of its range.
    """
    if not (_is_number(alpha) and 0 <= alpha <= 1):
        raise ConfigError(f"alpha must be a number from 0 to 1, found {alpha!r}")
    return build_terms(
        [
            TermChoice(name="cross_entropy", weight=alpha),
            TermChoice(name="pixel_kl", weight=1 - alpha, options={"temperature": temperature}),
        ]
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_weights(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return all(_is_number(item) and item >= 0 for item in value) and any(item > 0 for item in value)
