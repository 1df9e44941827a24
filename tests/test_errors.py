from __future__ import annotations

import pytest

from segshrink import errors


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.DataError, ValueError),
        (errors.FileError, OSError),
        (errors.ModelError, ValueError),
        (errors.TrainingError, RuntimeError),
    ],
)
def test_errors_are_builtins_too_and_keep_their_text(kind: type[Exception], builtin: type[Exception]) -> None:
    error = kind("x.yaml: wrong")
    assert isinstance(error, builtin)
    assert isinstance(error, errors.SegshrinkError)
    assert str(error) == "x.yaml: wrong"


def test_a_missing_extra_says_what_to_install() -> None:
    error = errors.MissingExtraError("training", "train")
    assert isinstance(error, ImportError)
    assert "pip install 'segshrink[train]'" in str(error)


def test_nearest_names_one_or_all() -> None:
    assert errors.nearest("widht", ["width", "depth"]) == "; did you mean 'width'?"
    assert errors.nearest("zzz", ["width", "depth"]) == "; known are: depth, width"
    assert errors.nearest("zzz", []) == ""
