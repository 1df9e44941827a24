"""Losses by name, as recipes write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from segshrink.classes import IGNORE_INDEX
from segshrink.config import Term as TermChoice
from segshrink.errors import ConfigError, TrainingError, nearest
from segshrink.losses.adapters import ChannelAdapter
from segshrink.losses.options import check_options, is_number
from segshrink.losses.registry import REGISTRY, Loss, names_of
from segshrink.losses.shapes import computing_dtype, like_student


@dataclass(frozen=True)
class Term:
    """One loss with its options and taps.

    Attributes:
        name: Name in a recipe, such as ``"pixel_kl"``.
        needs_teacher: Whether the call needs the teacher's logits or features.
        labels_only: True: only labeled pixels count. False: every pixel inside the scene counts, labeled or not.
        options: The options it was built with.
        student: Where the student's features are taken, a path or role; None: the term compares logits.
        teacher: Where the teacher's are taken.
        by_confidence: Whether pixels count by the teacher's confidence.
    """

    name: str
    needs_teacher: bool
    labels_only: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    student: str | None = None
    teacher: str | None = None
    by_confidence: bool = False
    _loss: Loss = field(repr=False, kw_only=True)

    @property
    def on_features(self) -> bool:
        """Whether it compares features, not logits."""
        return self.student is not None

    @property
    def label(self) -> str:
        """Its name, followed by ``@`` and the student's tap where that isn't the loss's default."""
        default = None if self._loss.compares == "either" else self._loss.tap
        return self.name if self.student is None or self.student == default else f"{self.name}@{self.student}"

    @property
    def least_classes(self) -> int:
        """Fewest classes that teacher and student must share; 0 for labels and features."""
        return self._loss.least_classes if self.needs_teacher and not self.on_features else 0

    def build_adapter(self, student_channels: int, teacher_channels: int) -> nn.Module | None:
        """Return the module that is trained with the student for this term, with new weights; None: it needs none.

        Args:
            student_channels: Channels of the features at ``student``.
            teacher_channels: Channels of the features at ``teacher``.
        """
        if isinstance(self._loss.function, type):
            module: nn.Module = self._loss.function(student_channels, teacher_channels, **self.options)
            return module
        needed = {"always": True, "differing": student_channels != teacher_channels, "never": False}
        return ChannelAdapter(student_channels, teacher_channels) if needed[self._loss.adapter] else None

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor | None,
        target: Tensor,
        inside: Tensor | None = None,
        *,
        known: Sequence[int] | None = None,
        num_classes: int | None = None,
        adapter: nn.Module | None = None,
    ) -> Tensor:
        """Return the unweighted loss, a float32 scalar (float64 for a float64 student).

        Args:
            student: Logits, or features where the term compares features, (N, C, H, W).
            teacher: The same of the teacher, (N, C', h, w); may be None for a supervised term. Pixels where all its
                logits are equal don't count: it says nothing about them.
            target: Class indices (N, H, W), 255 where unlabeled.
            inside: Bool (N, H, W), False where a crop reaches outside its scene; None: inside everywhere.
            known: The classes that the teacher knows; the logits of others aren't compared, and pixels labeled as
                one of them don't count. None: all.
            num_classes: Number of classes, for the losses on features that need it.
            adapter: What ``build_adapter`` returned.

        Raises:
            TrainingError: The term needs a teacher, or an adapter, and got none.
            ModelError: Shapes contradict each other.
        """
        if not self.needs_teacher:
            return self._value(student, target)
        if teacher is None:
            raise TrainingError(f"the loss term '{self.name}' learns from a teacher; give one or drop the term")
        if self.on_features:
            return self._of_features(student, teacher, target, inside, num_classes, adapter)
        labels, uncounted = target, None if inside is None else inside.logical_not()
        if known is not None:
            index = torch.tensor(known, device=student.device)
            student, teacher = student.index_select(1, index), teacher.index_select(1, index)
            labels, unknown = _as_known(target, index)
            uncounted = unknown if uncounted is None else uncounted | unknown
        silent = _silent(teacher, student)
        if silent is not None:
            labels = labels.masked_fill(silent, IGNORE_INDEX)
            uncounted = silent if uncounted is None else uncounted | silent
        mask = labels if self.labels_only else _mask(uncounted)
        if self.by_confidence:
            return self._value(student, teacher, mask, weights=_confidence(teacher, student))
        return self._value(student, teacher, mask)

    def _of_features(
        self,
        student: Tensor,
        teacher: Tensor,
        target: Tensor,
        inside: Tensor | None,
        num_classes: int | None,
        adapter: nn.Module | None,
    ) -> Tensor:
        if isinstance(self._loss.function, type):
            if adapter is None:
                raise TrainingError(f"the loss term '{self.name}' is a trained module; give what build_adapter returns")
            result: Tensor = adapter(student, teacher)
            return result
        if adapter is not None:
            student = adapter(student)
        if self._loss.pixels == "all":
            return self._value(student, teacher)
        if self._loss.pixels == "inside":
            return self._value(student, teacher, _mask(None if inside is None else inside.logical_not()))
        return self._value(student, teacher, target, num_classes=num_classes)

    def _value(self, *inputs: Tensor | None, **filled_in: Any) -> Tensor:
        result = self._loss.function(*inputs, **self.options, **filled_in)
        assert isinstance(result, Tensor)  # noqa: S101  # modules are handled by their adapter
        return result


class WeightedTerm(NamedTuple):
    """A term and its factor in the total loss."""

    weight: float
    term: Term


def build_term(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    student: str | None = None,
    teacher: str | None = None,
    by_confidence: bool = False,
) -> Term:
    """Return the loss term of that name.

    Args:
        name: A loss of ``segshrink.losses.REGISTRY``.
        options: Keyword arguments of the function of that name in ``segshrink.losses``.
        student: Where the student's features are taken, a path or role; None: where the teacher's are, or the
            loss's default.
        teacher: The same for the teacher.
        by_confidence: Weigh the pixels by the teacher's confidence.

    Raises:
        ConfigError: Unknown name, unknown option, an option out of its range, or taps for a loss without features.
    """
    loss = REGISTRY.get(name)
    if loss is None:
        raise ConfigError(f"unknown loss term '{name}'{nearest(name, REGISTRY)}")
    options = dict(options or {})
    check_options(name, loss, options)
    tapped = student is not None or teacher is not None
    if tapped and loss.compares in ("labels", "logits"):
        raise ConfigError(
            f"loss term '{name}' compares logits and takes no 'student' or 'teacher'; leave them out, or choose a loss "
            f"on features: {', '.join(names_of('features', 'either'))}"
        )
    if by_confidence and not loss.takes_weights:
        raise ConfigError(f"loss term '{name}' can't weigh its pixels; {', '.join(_weighable())} can")
    if loss.compares == "features" or tapped:
        student, teacher = student or teacher or loss.tap, teacher or student or loss.tap
    return Term(
        name,
        loss.compares != "labels",
        loss.pixels == "labeled",
        options,
        student,
        teacher,
        by_confidence,
        _loss=loss,
    )


def build_terms(choices: Iterable[TermChoice], *, confidence_weighting: bool = False) -> tuple[WeightedTerm, ...]:
    """Return the terms a recipe lists, in its order; those of weight 0 are left out.

    Args:
        choices: Name, weight, options and taps of each.
        confidence_weighting: Weigh the pixels by the teacher's confidence in the terms that can.

    Raises:
        ConfigError: A term is wrong, none is left, or none can be weighted by confidence.
    """
    built = [
        WeightedTerm(
            choice.weight,
            build_term(
                choice.name,
                choice.options,
                student=choice.student,
                teacher=choice.teacher,
                by_confidence=confidence_weighting and choice.name in _weighable(),
            ),
        )
        for choice in choices
    ]
    kept = tuple(weighted for weighted in built if weighted.weight > 0)
    if not kept:
        raise ConfigError(
            "the list of loss terms is empty or all weights are 0; give at least one term a weight above 0"
        )
    if confidence_weighting and not any(term.by_confidence for _, term in kept):
        raise ConfigError(
            f"confidence_weighting weighs the pixels of {', '.join(_weighable())}, and none of the terms "
            f"({', '.join(term.name for _, term in kept)}) is one; add such a term, or switch confidence_weighting off"
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
    if not (is_number(alpha) and 0 <= alpha <= 1):
        raise ConfigError(f"alpha must be a number from 0 to 1, found {alpha!r}")
    return build_terms(
        [
            TermChoice(name="cross_entropy", weight=alpha),
            TermChoice(name="pixel_kl", weight=1 - alpha, options={"temperature": temperature}),
        ]
    )


def label_terms(terms: Iterable[WeightedTerm]) -> dict[str, WeightedTerm]:
    """Return the terms by a name that each has for itself: its label, and ``#2``, ``#3`` behind one that comes again.

    Example:
        >>> choices = [TermChoice(name="cross_entropy"), TermChoice(name="pixel_kl"), TermChoice(name="pixel_kl")]
        >>> list(label_terms(build_terms(choices)))
        ['cross_entropy', 'pixel_kl', 'pixel_kl#2']
    """
    labeled: dict[str, WeightedTerm] = {}
    times: dict[str, int] = {}
    for weighted in terms:
        label = weighted.term.label
        times[label] = times.get(label, 0) + 1
        labeled[label if times[label] == 1 else f"{label}#{times[label]}"] = weighted
    return labeled


def _weighable() -> list[str]:
    return [name for name, loss in REGISTRY.items() if loss.takes_weights]


def _mask(uncounted: Tensor | None) -> Tensor | None:
    """Return an ignored label where pixels don't count, and any other label where they do."""
    return None if uncounted is None else uncounted * IGNORE_INDEX


def _as_known(target: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels counted among the known classes, ignored elsewhere, and where a label is an unknown class."""
    positions = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX, device=target.device)
    positions[known] = torch.arange(len(known), device=target.device)
    labels = positions[target.long()]
    return labels, (labels == IGNORE_INDEX) & (target != IGNORE_INDEX)


def _silent(teacher: Tensor, student: Tensor) -> Tensor | None:
    """Return where the teacher says nothing about a pixel of the student, all its logits being equal, (N, H, W).

    None: nowhere. Of a single class nothing can be told.
    """
    if teacher.shape[1] < 2:
        return None
    logits = like_student(teacher, student)
    # Two classes are compared before all are, which takes far longer.
    if not bool((logits[:, 0] == logits[:, 1]).any()):
        return None
    silent = logits.amax(dim=1) == logits.amin(dim=1)
    return silent if bool(silent.any()) else None


def _confidence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return how sure the teacher is of each pixel of the student, (N, H, W) from 0 (evenly spread) to 1.

    ``(p_max − 1/C) / (1 − 1/C)`` with p the teacher's softmax at temperature 1.
    """
    with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
        logits = like_student(teacher.to(computing_dtype(student)), student)
        highest = (logits.amax(dim=1) - logits.logsumexp(dim=1)).exp_()
        even = 1 / logits.shape[1]
        return ((highest - even) / (1 - even)).clamp_(min=0)
