"""Budgets: limits on latency, size, memory, parameters, operations and accuracy, written as people write them.

``Budget.parse("latency<=20ms,size<=1MB,drop<=1.0")``. Free of torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from segshrink.errors import SegshrinkError, UsageError, nearest

_LIMIT = re.compile(r"^(?P<name>[^<>=!]*?)\s*(?P<operator>[<>=!]+)\s*(?P<value>.*)$")
_VALUE = re.compile(r"^(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<unit>\S*)$")
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
# Points of mIoU that weigh as much as twice the latency when the nearest to a budget is looked for.
_POINTS_LIKE_DOUBLE = 10.0


class UnmetBudgetError(SegshrinkError, RuntimeError):
    """No candidate keeps all limits; the text says which limit binds and what came nearest."""


@dataclass(frozen=True)
class Quantity:
    """What can be limited.

    Attributes:
        name: As it stands in a budget.
        units: Factor to the base unit of each unit, rising; "" stands for none.
        example: A limit on it.
        highest: Whether the limit is a highest value ("<="), or a lowest (">=").
        trained: Whether only a trained model has it.
    """

    name: str
    units: Mapping[str, float]
    example: str
    highest: bool = True
    trained: bool = False

    @property
    def operator(self) -> str:
        """The only operator that makes sense."""
        return "<=" if self.highest else ">="


_QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity("latency", {"ms": 1.0, "s": 1e3}, "latency<=20ms"),
        Quantity("size", _BYTES, "size<=1MB"),
        Quantity("memory", _BYTES, "memory<=400MB"),
        Quantity("parameters", _COUNTS, "parameters<=500k"),
        Quantity("macs", _COUNTS, "macs<=2G"),
        Quantity("drop", {"": 1.0, "points": 1.0}, "drop<=1.0", trained=True),
        Quantity("miou", {"%": 0.01, "": 1.0}, "miou>=0.6", highest=False, trained=True),
        Quantity("accuracy", {"%": 0.01, "": 1.0}, "accuracy>=0.8", highest=False, trained=True),
    )
}


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        quantity: What is limited.
        value: The bound in base units: ms, bytes, a count, points of mIoU, a share in [0, 1].
    """

    quantity: Quantity
    value: float

    def __str__(self) -> str:
        # So that ``parse`` reads the same number back.
        unit, factor = ("", 1.0) if self.quantity.trained else _largest_unit(self.quantity, self.value)
        return f"{self.name}{self.quantity.operator}{self.value / factor:.12g}{unit}"

    @property
    def name(self) -> str:
        """What is limited."""
        return self.quantity.name

    def keeps(self, value: float) -> bool:
        """Whether a value in base units is within the limit."""
        return value <= self.value if self.quantity.highest else value >= self.value

    def excess(self, value: float) -> float:
        """Return how far beyond the limit a value is: 0 within it, 1 at twice the limit or ten points of mIoU."""
        if self.keeps(value):
            return 0.0
        if self.quantity.trained:
            points = abs(value - self.value) * (1 if self.name == "drop" else 100)
            return points / _POINTS_LIKE_DOUBLE
        return value / self.value - 1

    def compared(self, value: float) -> str:
        """Write a value beside the limit: "31 ms > 20 ms"."""
        shown, bound = show(self.name, value), show(self.name, self.value)
        if shown == bound:  # only more digits tell them apart
            shown, bound = show(self.name, value, digits=6), show(self.name, self.value, digits=6)
        sign = ("≤" if self.quantity.highest else "≥") if self.keeps(value) else (">" if self.quantity.highest else "<")
        return f"{shown} {sign} {bound}"


@dataclass(frozen=True)
class Violation:
    """A limit that is not kept, and the value in base units."""

    limit: Limit
    value: float

    @property
    def excess(self) -> float:
        """How far beyond the limit it is; see ``Limit.excess``."""
        return self.limit.excess(self.value)

    def __str__(self) -> str:
        return f"{self.limit.name} {self.limit.compared(self.value)}"


@dataclass(frozen=True)
class Budget:
    """Limits that a model must keep, all of them.

    Attributes:
        limits: In the order written, each quantity at most once.
    """

    limits: tuple[Limit, ...]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget such as ``"latency<=20ms,size<=1MB,memory<=400MB,drop<=1.0"``.

        Limits are separated by commas: ``latency`` (ms, s; one image), ``size`` and ``memory`` (B, kB, MB, GB,
        decimal), ``parameters`` and ``macs`` (plain, k, M, G), ``drop`` (points of mIoU below the teacher,
        negative above it), and the lowest ``miou`` and pixel ``accuracy`` (shares in [0, 1], or %). Units may be
        written in any case.

        Raises:
            UsageError: Nothing is limited, a limit or unit is unknown (the nearest is named), the operator is the
                wrong way round, a value is missing or out of range, or a quantity stands there twice.
        """
        parts = [part.strip() for part in text.replace("≤", "<=").replace("≥", ">=").split(",")]
        if not any(parts):
            raise UsageError(f"the budget is empty; give limits such as {_examples(3)}")
        limits: dict[str, Limit] = {}
        for part in parts:
            if not part:
                raise UsageError(f"budget '{text}' has a comma with no limit beside it; leave it out")
            limit = _parse_limit(part)
            if (other := limits.setdefault(limit.name, limit)) is not limit:
                raise UsageError(f"budget '{text}' limits {limit.name} twice ({other} and {limit}); give one of them")
        return cls(tuple(limits.values()))

    def __str__(self) -> str:
        return ",".join(str(limit) for limit in self.limits)

    def untrained(self) -> Budget:
        """Return the limits that a model keeps or breaks whatever its weights are."""
        return Budget(tuple(limit for limit in self.limits if not limit.quantity.trained))

    def limit(self, name: str) -> float | None:
        """Return the bound on a quantity in base units; None: it isn't limited."""
        return next((limit.value for limit in self.limits if limit.name == name), None)

    def violations(self, values: Mapping[str, float | None]) -> tuple[Violation, ...]:
        """Return the limits that are not kept.

        Args:
            values: Base-unit values by name of the quantity. One that is None or absent isn't judged.
        """
        return tuple(
            Violation(limit, value)
            for limit in self.limits
            if (value := values.get(limit.name)) is not None and not limit.keeps(value)
        )


def show(name: str, value: float, *, digits: int = 3) -> str:
    """Write a value in base units for people: "31 ms", "0.98 MB", "476 k", "1.7 points", "0.632".

    Args:
        name: The quantity.
        value: In its base unit.
        digits: Digits that count; shares always have at least three behind the point.
    """
    if name in ("miou", "accuracy"):
        return f"{value:.{max(3, digits)}f}"
    if name == "drop":
        return f"{value:.{max(2, digits - 1)}f} points"
    unit, factor = _largest_unit(_QUANTITIES[name], value)
    if name == "latency" and value < 10_000:
        unit, factor = "ms", 1.0
    return f"{_rounded(value / factor, digits)} {unit}".rstrip()


def _parse_limit(part: str) -> Limit:
    match = _LIMIT.match(part)
    if match is None:
        start = re.match(r"[A-Za-z_]*", part)
        limited = _QUANTITIES.get(start[0].lower()) if start else None
        example = limited.example if limited else _examples(2)
        raise UsageError(f"'{part}' in the budget compares nothing; write a limit such as {example}")
    name = match["name"].strip()
    quantity = _QUANTITIES.get(name.lower())
    if quantity is None:
        problem = f"unknown limit '{name}'" if name else "nothing is named"
        raise UsageError(f"'{part}' in the budget: {problem}{nearest(name.lower(), _QUANTITIES)}")
    if match["operator"] != quantity.operator:
        bound = "a highest value" if quantity.highest else "a lowest value"
        raise UsageError(
            f"'{part}' in the budget uses '{match['operator']}', but {quantity.name} is limited by {bound}; write "
            f"{quantity.example}"
        )
    return Limit(quantity, _parse_value(match["value"].strip(), quantity, part))


def _parse_value(text: str, quantity: Quantity, part: str) -> float:
    match = _VALUE.match(text)
    if match is None:
        problem = f": '{text}' is no number" if text else " has no value"
        raise UsageError(f"'{part}' in the budget{problem}; write {quantity.example}")
    value = float(match["number"]) * _factor(match["unit"], quantity, part)
    # A drop below 0 asks for a model that is better than its teacher.
    if value <= 0 and quantity.name != "drop":
        raise UsageError(f"'{part}' in the budget: {quantity.name} is always above 0; give a larger value")
    if value < -100:
        raise UsageError(f"'{part}' in the budget: no model is better than its teacher by over 100 points")
    if not math.isfinite(value):
        raise UsageError(f"'{part}' in the budget is too large a number; leave the limit out")
    if not quantity.highest and value > 1:
        raise UsageError(
            f"'{part}' in the budget: {quantity.name} is a share of at most 1; write {quantity.example} or "
            f"{quantity.name}>=60%"
        )
    return value


def _factor(unit: str, quantity: Quantity, part: str) -> float:
    for name, factor in quantity.units.items():
        if unit.lower() == name.lower():
            return factor
    names = [name for name in quantity.units if name]
    if not unit:
        raise UsageError(f"'{part}' in the budget has no unit; write one of {', '.join(names)}: {quantity.example}")
    binary = (
        f" (decimal: 1 MB is 1,000,000 bytes{nearest(unit.replace('i', ''), names)})" if "i" in unit.lower() else ""
    )
    raise UsageError(f"'{part}' in the budget: unknown unit '{unit}'{binary or nearest(unit, names)}")


def _largest_unit(quantity: Quantity, value: float) -> tuple[str, float]:
    """Return the largest unit in which a value is at least 1, or else the smallest; and its factor."""
    units = list(quantity.units.items())
    return next((unit for unit in reversed(units) if value / unit[1] >= 1), units[0])


def _rounded(value: float, digits: int) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    behind = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{behind}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _examples(count: int) -> str:
    return ",".join(quantity.example for quantity in list(_QUANTITIES.values())[:count])
