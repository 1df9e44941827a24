"""Whether masks hold what their classes mean: absent classes, and values that mean something else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.data.findings import Problem, UndeclaredFinding

_MOST_UNDECLARED = 256


def compare_classes(
    classes: ClassMap, counts: Mapping[str, NDArray[np.int64]], *, allowed: Collection[str], drawn: bool
) -> list[Problem]:
    """Tell which classes can't be learned or judged.

    Args:
        classes: What masks mean.
        counts: For each part of the split, pixels by class index.
        allowed: Classes that training masks need not hold.
        drawn: Whether labels of shapes or folders say what masks mean.
    """
    problems = []
    nothing = np.zeros(256, dtype=np.int64)
    train = counts.get("train", nothing)
    judged = counts.get("val", nothing) + counts.get("test", nothing)
    correct = "its labels, 'mask_background' or 'mask_field'" if drawn else "its color or value"
    for index, name in enumerate(classes.names):
        if train[index] == 0 and name not in allowed:
            where = "no training mask has it" if judged[index] else "no mask has it"
            message = (
                f"class '{name}' can't be learned: {where}; correct {correct}, or the split, or write allow_absent: "
                f"[{name}]"
            )
            problems.append(Problem("classes", "error", message))
        elif train[index] and judged[index] == 0:
            message = f"class '{name}' can't be judged: no mask outside the training images has it; change the split"
            problems.append(Problem("classes", "warning", message))
    return problems


def propose_values(
    classes: ClassMap, counts: NDArray[np.int64], undeclared: Mapping[str | int, object]
) -> list[Problem]:
    """Propose the classes' values where a class is absent and masks hold as many other values: 0 and 255, 1 to n.

    Args:
        classes: What masks mean.
        counts: Pixels of all masks by class index, ignored ones at 255.
        undeclared: Values in masks that nothing declares.
    """
    if classes.values is None or (counts[: len(classes)] > 0).all():
        return []
    held = {value for value, pixels in zip(classes.values, counts, strict=False) if pixels}
    if counts[IGNORE_INDEX] and IGNORE_INDEX in classes.ignored_values:
        held.add(IGNORE_INDEX)
    held |= {value for value in undeclared if isinstance(value, int)}
    for ignored in ((IGNORE_INDEX,), (), (0, IGNORE_INDEX)):
        values = sorted(held - set(ignored))
        if len(values) == len(classes) and tuple(values) != classes.values:
            break
    else:
        return []
    entries = ", ".join(f"{{name: {name}, value: {value}}}" for name, value in zip(classes.names, values, strict=True))
    ignore = " and ignore: [0]" if 0 in held and 0 not in values else ""
    in_masks, meant = (" and ".join(map(str, sorted(numbers))) for numbers in (held & {0, *values}, classes.values))
    message = f"masks hold the values {in_masks}, but classes mean {meant}; perhaps write classes: [{entries}]{ignore}"
    return [Problem("classes", "error", message)]


def undeclared_findings(table: Mapping[str | int, Mapping[str, int]]) -> tuple[UndeclaredFinding, ...]:
    """Return what is undeclared, value or color → pixels by file, the most frequent first; at most 256."""
    findings = [
        UndeclaredFinding(value, sum(files.values()), dict(sorted(files.items(), key=lambda item: -item[1])))
        for value, files in table.items()
    ]
    return tuple(sorted(findings, key=lambda finding: -finding.pixels)[:_MOST_UNDECLARED])


def undeclared_problem(table: Mapping[str | int, Mapping[str, int]], findings: Sequence[UndeclaredFinding]) -> Problem:
    """Tell what is undeclared, how often, in which files."""
    described = []
    for finding in findings[:6]:
        first, *rest = finding.files
        more = f" and {len(rest)} more files" if rest else ""
        described.append(f"{finding.value} ({finding.pixels} pixels in {first}{more})")
    more = f"; and {len(table) - 6} more" if len(table) > 6 else ""
    colors = [value for value in table if isinstance(value, str) and value.startswith("#")]
    kind = "colors" if colors else "values"
    cause = "; so many look like masks that were saved as JPEG or resized smoothly" if len(table) > 64 else ""
    files = tuple(sorted({name for files in table.values() for name in files}))
    message = f"undeclared mask {kind}: {'; '.join(described)}{more}; declare them under classes or ignore{cause}"
    return Problem("undeclared", "error", message, files)
