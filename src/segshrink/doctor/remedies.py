"""The recipe lines that mend what was found. Each is ``section.key: value``, YAML on one line.

On a command line the same is an override, ``section.key=value``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

from segshrink.classes import ClassMap
from segshrink.config import TeacherSource
from segshrink.doctor.scaling import Scaling, unchanged
from segshrink.doctor.input_variants import Trial
from segshrink.teachers.adapter import adapter_of

_DIGITS = 6


def recipe_line(key: str, value: Any) -> str:
    """Return one line of a recipe, such as ``distillation.temperature: 4``."""
    text = yaml.safe_dump(_plain(value), default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**20)
    return f"{key}: {text.removesuffix('...' + chr(10)).strip()}"


def teachers_line(sources: Sequence[TeacherSource], position: int, mended: TeacherSource) -> str:
    """Return the list of teachers with one of them replaced."""
    listed = [mended if number == position else source for number, source in enumerate(sources)]
    return recipe_line("distillation.teachers", [one.model_dump(mode="json", exclude_unset=True) for one in listed])


def mended_source(
    source: TeacherSource,
    *,
    trial: Trial,
    scaling: Scaling,
    order: Sequence[int] | None = None,
    classes: ClassMap,
) -> TeacherSource:
    """Return a teacher's entry that has a treatment's scaling, band order and class order built in.

    Args:
        source: The entry as it is.
        trial: The treatment; zoom, surroundings and batch statistics aren't a matter of the entry.
        scaling: What is done to pixels now, before the network gets them; the entry's replaces it.
        order: For each class of the student the teacher's class (in the student's order) that stands for it.
        classes: The student's classes.
    """
    adapter = adapter_of(source)
    changes: dict[str, Any] = {}
    reverse = (adapter.order == "bgr") != trial.reverse
    if trial.reverse:
        changes["order"] = "bgr" if reverse else "rgb"
    if trial.scaling is not None:
        whole = (trial.scaling.reversed() if reverse else trial.scaling).then(scaling)
        if whole.like(unchanged(len(whole.mean))):
            whole = unchanged(len(whole.mean))
        changes |= {"mean": _short(whole.mean), "std": _short(whole.std)}
    update: dict[str, Any] = {}
    if order is not None:
        moved = {classes.names[own]: classes.names[theirs] for own, theirs in enumerate(order) if own != theirs}
        update["classes"] = _renamed(source.classes, moved)
    if changes:
        update["adapter"] = adapter.model_copy(update=changes)
    return source.model_copy(update=update)


def with_output(source: TeacherSource, output: Literal["logits", "probabilities"]) -> TeacherSource:
    """Return a teacher's entry that says what it answers with."""
    return source.model_copy(update={"adapter": adapter_of(source).model_copy(update={"output": output})})


def rounded(value: float, digits: int = 2) -> float:
    """Round to that many significant digits."""
    return float(f"{value:.{digits}g}")


def _renamed(before: Mapping[str, str | list[str]], moved: Mapping[str, str]) -> dict[str, str | list[str]]:
    """Return class of the student -> classes of the teacher, with what stood for one class now standing for another."""
    return {**before, **{own: before.get(theirs, theirs) for own, theirs in moved.items()}}


def _plain(value: Any) -> Any:
    """Write whole numbers without a decimal point."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _short(values: Sequence[float]) -> float | list[float]:
    """Return one number where all bands have the same."""
    numbers = [rounded(value, _DIGITS) for value in values]
    return numbers[0] if len(set(numbers)) == 1 else numbers
