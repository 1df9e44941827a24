"""What belongs to a model on disk, whatever its kind."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segshrink.errors import FileError, ModelError
from segshrink.model_file import ModelFile, graph_of


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write(tmp_path / "run" / "model" / "config.json", b"{}")
    write(tmp_path / "run" / "model" / "model.safetensors", b"12345")
    return tmp_path / "run"


def test_a_run_folder_is_its_model(run: Path) -> None:
    model = ModelFile.find(run)
    assert model == ModelFile.find(run / "model") == ModelFile(run / "model")
    assert (model.kind, model.name, model.size_bytes) == ("folder", "run", 5)
    assert model.runtimes[0] == "torch"


def test_an_openvino_graph_has_its_weights_beside_it(tmp_path: Path) -> None:
    graph = write(tmp_path / "small.XML", b"<net/>")
    weights = write(tmp_path / "small.bin", b"1234")
    model = ModelFile.find(graph)
    assert (model.kind, model.name, model.parts) == (".xml", "small", (graph, weights))
    assert model.size_bytes == 10
    assert graph_of(weights).name == "small.xml"
    digests = "".join(hashlib.sha256(content).hexdigest() for content in (b"<net/>", b"1234"))
    assert model.sha256() == hashlib.sha256(digests.encode()).hexdigest()
    weights.unlink()
    with pytest.raises(FileError, match=r"small\.bin is missing"):
        _ = model.size_bytes
    with pytest.raises(FileError, match=r"small\.bin"):
        model.sha256()


def test_what_is_said_about_a_keras_file_belongs_to_it(tmp_path: Path) -> None:
    file = write(tmp_path / "unet.keras", b"1234")
    model = ModelFile.find(f"keras:{file}")
    assert model == ModelFile.find(file)
    assert (model.kind, model.name, model.parts, model.is_torch) == (".keras", "unet", (file,), True)
    alone = model.sha256()
    said = write(tmp_path / "unet.keras.yaml", b"order: bgr")
    assert (model.parts, model.size_bytes) == ((file, said), 4)
    assert model.sha256() != alone


@pytest.mark.parametrize("name", ["net.data", f"{'w' * 200}.bin"])
def test_an_onnx_file_has_the_weights_that_it_names_beside_it(tmp_path: Path, name: str) -> None:
    weights = numpy_helper.from_array(np.arange(6, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["weights"], ["out"])],
        "net",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [6])],
        [weights],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    alone = ModelFile(write(tmp_path / "whole.onnx", whole.SerializeToString()))
    assert alone.parts == (alone.path,)
    content = hashlib.sha256(alone.path.read_bytes()).hexdigest()
    assert alone.sha256() == hashlib.sha256(content.encode()).hexdigest()

    onnx.save(whole, tmp_path / "net.onnx", save_as_external_data=True, location=name, size_threshold=0)
    model = ModelFile.find(tmp_path / "net.onnx")
    assert model.parts == (tmp_path / "net.onnx", tmp_path / name)
    assert model.size_bytes == (tmp_path / "net.onnx").stat().st_size + 24
    before = model.sha256()
    write(tmp_path / name, b"x" * 24)
    assert model.sha256() != before
    (tmp_path / name).unlink()
    with pytest.raises(FileError, match=f"{name} is missing"):
        _ = model.size_bytes
    write(model.path, model.path.read_bytes().replace(name.encode(), b"../" + name[3:].encode()))
    assert model.parts == (model.path,), "what lies elsewhere isn't the model's"


def test_a_file_that_is_yet_to_be_written_has_its_parts() -> None:
    assert ModelFile(Path("out/model.onnx")).parts == (Path("out/model.onnx"),)
    assert graph_of(Path("out/model.onnx")) == Path("out/model.onnx")


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nothing does not exist"):
        ModelFile.find(tmp_path / "nothing")
    with pytest.raises(FileError, match=r"has no config\.json"):
        ModelFile.find(tmp_path)
    with pytest.raises(ModelError, match=r"weights\.pth"):
        ModelFile.find(write(tmp_path / "weights.pth", b"1"))
    with pytest.raises(FileError, match=r"empty\.pth is empty"):
        ModelFile.find(write(tmp_path / "empty.pth", b""))
    for place in ("~nosuchuser/a.onnx", "keras:~nosuchuser/a.keras"):
        with pytest.raises(FileError, match=r"~nosuchuser/a\.(onnx|keras) does not exist"):
            ModelFile.find(place)
