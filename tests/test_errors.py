from __future__ import annotations

import json
import pickle
import re
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segshrink import errors
from segshrink.classes import UndeclaredError
from segshrink.compression.budget import UnmetBudgetError
from segshrink.folder_lock import InUseError


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
    assert errors.install_command("train") in str(error)


@pytest.mark.parametrize(
    "error",
    [
        *(kind("x: wrong") for kind in (errors.UsageError, errors.FileError, InUseError, UnmetBudgetError)),
        errors.MissingExtraError("training", "train"),
        UndeclaredError("x.png holds undeclared colors", {"#FF0000": 3}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_processes(error: errors.SegshrinkError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_every_error_with_a_constructor_of_its_own_crosses_processes() -> None:
    kinds = [errors.SegshrinkError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    own = {kind for kind in kinds if "__init__" in vars(kind)}
    assert {errors.MissingExtraError, UndeclaredError} <= own
    assert [kind for kind in own if "__reduce__" not in vars(kind)] == []


@pytest.mark.parametrize(
    ("record", "command"),
    [
        ({"url": "{source}", "dir_info": {"editable": True}}, "pip install -e '{folder}[train]'"),
        ({"url": "{source}", "dir_info": {}}, "pip install '{folder}[train]'"),
        ({"url": "{source}/gone", "dir_info": {}}, "pip install '.[train]' in the folder of segshrink's source"),
        (
            {"url": "https://example.org/s.git", "vcs_info": {"vcs": "git"}},
            "pip install 'segshrink[train] @ git+https://example.org/s.git'",
        ),
        ({"url": "https://example.org/s.whl", "archive_info": {}}, "pip install '.[train]' in the folder"),
        (None, "pip install '.[train]' in the folder"),
    ],
)
def test_an_extra_comes_from_where_the_package_came(
    record: dict[str, Any] | None, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my source"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    text = None if record is None else json.dumps(record).replace("{source}", folder.as_uri())
    monkeypatch.setattr(metadata.Distribution, "from_name", lambda _: SimpleNamespace(read_text=lambda _: text))
    assert errors.install_command("train").startswith(command.replace("{folder}", str(folder)))


def test_no_document_advises_a_name_that_stands_on_no_index() -> None:
    root = Path(__file__).parents[1]
    documents = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("docs/**/*.ipynb")]
    assert len(documents) > 12
    advice = re.compile(r"pip install (-\S+ )*['\"]*segshrink\b")
    assert [path.name for path in documents if advice.search(path.read_text(encoding="utf-8"))] == []


def test_nearest_names_one_or_all() -> None:
    assert errors.nearest("widht", ["width", "depth"]) == "; did you mean 'width'?"
    assert errors.nearest("onnx", ["onnxruntime", "openvino"]) == "; did you mean 'onnxruntime'?"
    assert errors.nearest("o", ["onnxruntime", "openvino"]) == "; known are: onnxruntime, openvino"
    assert errors.nearest("zzz", ["width", "depth"]) == "; known are: depth, width"
    assert errors.nearest("zzz", []) == ""
