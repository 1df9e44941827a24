"""JSON records on disk: a pydantic class is a record's one schema, and a wrong file is one clear error."""

from __future__ import annotations

import math
import reprlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FailFast, Strict, ValidationError
from pydantic_core import ErrorDetails

from segshrink.errors import DataError
from segshrink.files import read_json, write_json
from segshrink.formatting import printable

_T = TypeVar("_T")
# What a field takes, by the kind of error that pydantic raises.
_EXPECTED = {
    **dict.fromkeys(("float_type", "finite_number"), "a number"),
    "int_type": "a whole number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "an object"),
}


def _undefined_as_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


Number = Annotated[float, Strict()]
Count = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
# A number that may be undefined: NaN in memory, null in the file, None here.
Score = Annotated[Number | None, BeforeValidator(_undefined_as_none)]
# A text that may be shown anywhere.
Text = Annotated[str, AfterValidator(printable)]
Many = Annotated[tuple[_T, ...], FailFast()]


class Record(BaseModel):
    """A JSON object on disk: unknown keys are ignored, values are frozen, numbers are finite and no texts.

    Attributes:
        remedy: What to do about a wrong file, as the end of a sentence.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=())
    remedy: ClassVar[str] = "write it again"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file.

        Raises:
            FileError: There is no such file, or it isn't JSON.
            DataError: It holds something else; the sentence names file and field.
        """
        try:
            return cls.model_validate(read_json(file))
        except ValidationError as error:
            raise DataError(f"{file}: {_complaint(error.errors(include_url=False)[0])}; {cls.remedy}") from error

    @classmethod
    def read_if_present(cls, file: Path) -> Self | None:
        """Read a file, or return None when there is none."""
        return cls.read(file) if file.is_file() else None

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        return self.model_dump(mode="json", by_alias=True)

    def write(self, file: Path, *, overwrite: bool | None = None) -> None:
        """Write the file whole or not at all; ``overwrite`` as ``segshrink.files.replacing`` has it."""
        write_json(file, self.to_json(), overwrite=overwrite)


def _complaint(problem: ErrorDetails) -> str:
    """Say what is wrong with a file's content."""
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"]).lstrip(".")
    where = f"'{field}'" if field else "the file"
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] == "value_error":
        return f"{where} {problem['msg'].removeprefix('Value error, ')}"
    expected = _EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Input should be ")
    value = problem["input"]
    kind = "null" if value is None else type(value).__name__
    return f"{where} must be {expected}, found {kind} {reprlib.repr(value)}"
