"""Which model is measured on which runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from segshrink.errors import ConfigError, FileError, MissingExtraError, ModelError, install_command
from segshrink.profiling import plan as planning
from segshrink.profiling.plan import plan


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    for folder in ("runs/student/model", "runs/teacher/model", "other/student/model"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("small.onnx", "small.xml", "notes.txt"):
        (tmp_path / file).touch()
    return {path.name: path for path in tmp_path.iterdir()} | {"root": tmp_path}


def combined(*arguments: Path, **options: object) -> list[tuple[str, str, str]]:
    entries, _ = plan(arguments, **({"runtimes": None, "precisions": ("auto",)} | options))  # type: ignore[arg-type]
    return [(entry.model, entry.runtime, entry.precision) for entry in entries]


def test_every_runtime_that_suits(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "find_spec", lambda name: object())
    assert combined(sources["runs"] / "student", sources["small.onnx"]) == [
        ("student", "torch", "auto"),
        ("student", "torch-compile", "auto"),
        ("student", "onnxruntime", "auto"),
        ("student", "openvino", "auto"),
        ("small", "onnxruntime", "auto"),
        ("small", "openvino", "auto"),
    ]


def test_precisions_are_for_runtimes_that_have_a_choice(sources: dict[str, Path]) -> None:
    found = combined(sources["small.onnx"], runtimes=("onnxruntime", "openvino"), precisions=("auto", "32", "auto"))
    assert found == [("small", "onnxruntime", "auto"), ("small", "openvino", "auto"), ("small", "openvino", "32")]


def test_names_are_short_and_unlike(sources: dict[str, Path]) -> None:
    root = sources["root"]
    paths = (root / "runs/student/model", root / "runs/teacher", root / "other/student", root / "runs/teacher")
    found = [model for model, *_ in combined(*paths, runtimes=("torch",))]
    assert found == ["model", "teacher", "student"]
    alike = (root / "small.onnx", root / "small.xml")
    assert [model for model, *_ in combined(*alike, runtimes=("openvino",))] == ["small.onnx", "small.xml"]
    twins = (root / "runs/student", root / "other/student")
    assert [model for model, *_ in combined(*twins, runtimes=("torch",))] == [str(path) for path in twins]


def test_what_is_not_installed_is_said(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "find_spec", lambda name: None if name == "openvino" else object())
    entries, notes = plan([sources["small.onnx"]], runtimes=None, precisions=("auto",))
    assert [entry.runtime for entry in entries] == ["onnxruntime"]
    assert notes == [f"OpenVINO is not installed, so it was not measured: {install_command('openvino')}"]
    with pytest.raises(MissingExtraError, match=r"OpenVINO .*\[openvino\]"):
        combined(sources["small.xml"])
    monkeypatch.setattr(planning, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(MissingExtraError, match=r"PyTorch .*\[train\]"):
        combined(sources["runs"] / "student")


def test_what_does_not_suit_is_said(sources: dict[str, Path]) -> None:
    entries, notes = plan(
        [sources["small.onnx"], sources["small.xml"]], runtimes=("onnxruntime",), precisions=("auto",)
    )
    assert len(entries) == 1
    assert notes == [f"{sources['small.xml']} can't run in ONNX Runtime, but in OpenVINO"]
    with pytest.raises(ModelError, match=r"nothing can be measured.*can't run in PyTorch"):
        combined(sources["small.onnx"], runtimes=("torch",))


def test_wrong_input(sources: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="nothing to measure"):
        combined()
    with pytest.raises(FileError, match=r"absent\.onnx does not exist"):
        combined(sources["root"] / "absent.onnx")
    with pytest.raises(ModelError, match=r"notes\.txt is neither"):
        combined(sources["notes.txt"])
    with pytest.raises(ConfigError, match="runtime 'tensorrt' is unknown"):
        combined(sources["small.onnx"], runtimes=("tensorrt",))
    with pytest.raises(ConfigError, match="precision 'fp16' is unknown"):
        combined(sources["small.onnx"], precisions=("fp16",))
