"""Budgets: limits on latency, size, memory, parameters, operations and accuracy, written as people write them.

``Budget.parse("latency<=20ms,size<=1MB,drop<=1.0")``. Free of torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segshrink.errors import SegshrinkError, UsageError, nearest

_PIECE = re.compile(r"^(?P<name>[^<>=!]*?)\s*(?P<operator>[<>=!]+)\s*(?P<value>.*)$")
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
        units: Factor to the base unit of each unit; "" stands for none.
        highest: Whether the limit is a highest value ("<="), or a lowest (">=").
        trained: Whether only a trained model has it.
        example: A limit on it.
    """

    name: str
    units: Mapping[str, float]
    highest: bool
    trained: bool
    example: str

    @property
    def operator(self) -> str:
        """The only operator that makes sense."""
        return "<=" if self.highest else ">="


_QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity("latency", {"ms": 1.0, "s": 1e3}, highest=True, trained=False, example="latency<=20ms"),
        Quantity("size", _BYTES, highest=True, trained=False, example="size<=1MB"),
        Quantity("memory", _BYTES, highest=True, trained=False, example="memory<=400MB"),
        Quantity("parameters", _COUNTS, highest=True, trained=False, example="parameters<=500k"),
        Quantity("macs", _COUNTS, highest=True, trained=False, example="macs<=2G"),
        Quantity("drop", {"": 1.0, "points": 1.0}, highest=True, trained=True, example="drop<=1.0"),
        Quantity("miou", {"": 1.0, "%": 0.01}, highest=False, trained=True, example="miou>=0.6"),
        Quantity("accuracy", {"": 1.0, "%": 0.01}, highest=False, trained=True, example="accuracy>=0.8"),
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
        return f"{self.quantity.name}{self.quantity.operator}{_bound(self.quantity.name, self.value)}"

    @property
    def name(self) -> str:
        """What is limited."""
        return self.quantity.name

    def keeps(self, value: float) -> bool:
        """Whether a value in base units is within the limit."""
        return value <= self.value if self.quantity.highest else value >= self.value

    def excess(self, value: float) -> float:
        """Say how far beyond the limit a value is: 0 within it, 1 at twice the limit or ten points of mIoU."""
        if self.keeps(value):
            return 0.0
        if self.quantity.trained:
            points = abs(value - self.value) * (1 if self.name == "drop" else 100)
            return points / _POINTS_LIKE_DOUBLE
        return value / self.value - 1

    def told(self, value: float) -> str:
        """Write a value beside the limit: "31 ms > 20 ms"."""
        shown, bound = show(self.name, value), show(self.name, self.value)
        if shown == bound:  # told apart by more digits only
            shown, bound = show(self.name, value, digits=6), show(self.name, self.value, digits=6)
        sign = ("≤" if self.quantity.highest else "≥") if self.keeps(value) else (">" if self.quantity.highest else "<")
        return f"{shown} {sign} {bound}"


@dataclass(frozen=True)
class Breach:
    """A limit that is not kept, and the value in base units."""

    limit: Limit
    value: float

    @property
    def excess(self) -> float:
        """How far beyond the limit it is; see ``Limit.excess``."""
        return self.limit.excess(self.value)

    def __str__(self) -> str:
        return f"{self.limit.name} {self.limit.told(self.value)}"


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
        pieces = [piece.strip() for piece in text.replace("≤", "<=").replace("≥", ">=").split(",")]
        if not any(pieces):
            raise UsageError(f"the budget is empty; give limits such as {_examples(3)}")
        limits: list[Limit] = []
        for piece in pieces:
            if not piece:
                raise UsageError(f"budget '{text}' has a comma with no limit beside it; leave it out")
            limit = _parse_limit(piece)
            if (other := next((one for one in limits if one.name == limit.name), None)) is not None:
                raise UsageError(f"budget '{text}' limits {limit.name} twice ({other} and {limit}); give one of them")
            limits.append(limit)
        return cls(tuple(limits))

    def __str__(self) -> str:
        return ",".join(str(limit) for limit in self.limits)

    def untrained(self) -> Budget:
        """Return the limits that a model keeps or breaks whatever its weights are."""
        return Budget(tuple(limit for limit in self.limits if not limit.quantity.trained))

    def limit(self, name: str) -> float | None:
        """Return the bound on a quantity in base units; None: it isn't limited."""
        return next((limit.value for limit in self.limits if limit.name == name), None)

    def breaches(self, values: Mapping[str, float | None]) -> tuple[Breach, ...]:
        """Say which limits are not kept.

        Args:
            values: Base-unit values by name of the quantity. One that is None or absent isn't judged.
        """
        return tuple(
            Breach(limit, value)
            for limit in self.limits
            if (value := values.get(limit.name)) is not None and not limit.keeps(value)
        )


def worst(breaches: Sequence[Breach]) -> Breach:
    """Return the limit that is missed by most."""
    return max(breaches, key=lambda breach: breach.excess)


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
    if name == "latency":
        return f"{_rounded(value, digits)} ms" if value < 10_000 else f"{_rounded(value / 1e3, digits)} s"
    units = _BYTES if name in ("size", "memory") else _COUNTS
    unit = _largest(units, value, at_least=1.0)
    return f"{_rounded(value / units[unit], digits)} {unit}".rstrip()


def _parse_limit(piece: str) -> Limit:
    found = _PIECE.match(piece)
    if found is None:
        name = re.match(r"[A-Za-z_]*", piece)
        quantity = _QUANTITIES.get(name[0].lower()) if name else None
        example = quantity.example if quantity else _examples(2)
        raise UsageError(f"'{piece}' in the budget compares nothing; write a limit such as {example}")
    quantity = _quantity(found["name"].strip(), piece)
    if found["operator"] != quantity.operator:
        what = "a highest value" if quantity.highest else "a lowest value"
        raise UsageError(
            f"'{piece}' in the budget uses '{found['operator']}', but {quantity.name} is limited by {what}; write "
            f"{quantity.example}"
        )
    return Limit(quantity, _parse_value(found["value"].strip(), quantity, piece))


def _quantity(name: str, piece: str) -> Quantity:
    quantity = _QUANTITIES.get(name.lower())
    if quantity is None:
        told = f"unknown limit '{name}'" if name else "nothing is named"
        raise UsageError(f"'{piece}' in the budget: {told}{nearest(name.lower(), _QUANTITIES)}")
    return quantity


def _parse_value(text: str, quantity: Quantity, piece: str) -> float:
    found = _VALUE.match(text)
    if found is None:
        raise UsageError(
            f"'{piece}' in the budget: '{text}' is no number; write {quantity.example}"
            if text
            else f"'{piece}' in the budget has no value; write {quantity.example}"
        )
    value = float(found["number"]) * _factor(found["unit"], quantity, piece)
    # A drop below 0 asks for a model that is better than its teacher.
    if value <= 0 and quantity.name != "drop":
        raise UsageError(f"'{piece}' in the budget: {quantity.name} is always above 0; give a larger value")
    if value < -100:
        raise UsageError(f"'{piece}' in the budget: no model is better than its teacher by over 100 points")
    if not math.isfinite(value):
        raise UsageError(f"'{piece}' in the budget is too large a number; leave the limit out")
    if not quantity.highest and value > 1:
        raise UsageError(
            f"'{piece}' in the budget: {quantity.name} is a share of at most 1; write {quantity.example} or "
            f"{quantity.name}>=60%"
        )
    return value


def _factor(unit: str, quantity: Quantity, piece: str) -> float:
    for known, factor in quantity.units.items():
        if unit.lower() == known.lower():
            return factor
    named = [known for known in quantity.units if known]
    if not unit:
        raise UsageError(f"'{piece}' in the budget has no unit; write one of {', '.join(named)}: {quantity.example}")
    binary = (
        f" (decimal: 1 MB is 1,000,000 bytes{nearest(unit.replace('i', ''), named)})" if "i" in unit.lower() else ""
    )
    raise UsageError(f"'{piece}' in the budget: unknown unit '{unit}'{binary or nearest(unit, named)}")


def _bound(name: str, value: float) -> str:
    """Write a bound so that ``parse`` reads the same number back."""
    if name in ("miou", "accuracy", "drop"):
        return f"{value:.12g}"
    units = {"ms": 1.0, "s": 1e3} if name == "latency" else _BYTES if name in ("size", "memory") else _COUNTS
    unit = "ms" if name == "latency" else _largest(units, value, at_least=1.0)
    return f"{value / units[unit]:.12g}{unit}"


def _largest(units: Mapping[str, float], value: float, *, at_least: float) -> str:
    """Return the largest unit in which a value is at least so much."""
    fitting = [unit for unit, factor in units.items() if value / factor >= at_least]
    return fitting[-1] if fitting else next(iter(units))


def _rounded(value: float, digits: int) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    behind = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{behind}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _examples(count: int) -> str:
    return ",".join(quantity.example for quantity in list(_QUANTITIES.values())[:count])
