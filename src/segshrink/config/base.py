"""The strict base of all configuration classes."""

from __future__ import annotations

import math
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

# The largest seed that every library takes.
LARGEST_SEED = 2**32 - 1
# Keys of a mapping that stands for a value which a study chooses.
OPEN_KINDS = ("log", "uniform", "int", "choice")


class Strict(BaseModel):
    """A configuration section: unknown keys are refused, values are frozen, numbers are finite and no truth values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values_for_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if (int in kinds or float in kinds) and bool not in kinds:
            parts = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(part, bool) for part in parts):
                raise PydanticCustomError("number", "Input should be a number")
        return value


def _kinds(annotation: Any) -> list[Any]:
    """Return the plain types that an annotation is made of."""
    inner = get_args(annotation)
    return [kind for part in inner for kind in _kinds(part)] if inner else [annotation]


def _finite(value: Any) -> Any:
    """Refuse numbers without end anywhere in options."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for part in parts:
        _finite(part)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected finite numbers, found {value}")
    return value


# Options by name: any plain values, numbers finite.
Options = Annotated[dict[str, Any], AfterValidator(_finite)]


def is_open(value: object) -> bool:
    """Whether a recipe's value is written as an open one."""
    return (
        isinstance(value, dict) and set(value) <= {*OPEN_KINDS, "default"} and any(kind in value for kind in OPEN_KINDS)
    )
