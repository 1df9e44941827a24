from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import segshrink
from segshrink.errors import MissingExtraError


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_every_public_name_is_there_and_is_what_its_room_holds() -> None:
    for name in segshrink.__all__:
        assert getattr(segshrink, name) is not None
    assert set(segshrink.__all__) <= set(dir(segshrink))
    assert segshrink.load_model is segshrink.models.load_model
    assert segshrink.Confusion is segshrink.evaluation.Confusion


def test_a_verb_and_its_room_share_a_name() -> None:
    assert callable(segshrink.export)
    assert import_module("segshrink.export.onnx").export_onnx is segshrink.export_onnx
    import_module("segshrink.report.page")
    assert callable(segshrink.export), "importing the room doesn't hide the verb"
    assert callable(segshrink.report)


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(segshrink, "no_such_name")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = segshrink.no_such_name


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, segshrink\n"
        "heavy = {'torch', 'numpy', 'PIL', 'pydantic', 'matplotlib', 'rasterio', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    found = run_python(code)
    assert found.returncode == 0, found.stderr


def test_reading_predicting_and_reporting_import_no_torch() -> None:
    names = "Predictor, report, load_recipe, ClassMap, open_backend"
    found = run_python(f"import sys; from segshrink import {names}; assert 'torch' not in sys.modules")
    assert found.returncode == 0, found.stderr


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import segshrink, segshrink.errors as errors\n"
        "try: segshrink.load_model\n"
        "except errors.MissingExtraError as error: print(error)"
    )
    found = run_python(code)
    assert "[train]'" in found.stdout, found.stderr
    assert "segshrink.load_model" in found.stdout


def test_an_unknown_missing_module_is_not_blamed_on_an_extra() -> None:
    from segshrink.extras import missing_extra

    assert missing_extra(ModuleNotFoundError("no", name="somebodys_module"), feature="x") is None
    found = missing_extra(ModuleNotFoundError("no", name="torch.nn"), feature="segshrink train")
    assert isinstance(found, MissingExtraError)
    assert str(found).startswith("segshrink train needs an optional dependency: pip install ")
    assert "[train]'" in str(found)
