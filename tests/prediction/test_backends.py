from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError, UsageError
from segshrink.export import export_onnx
from segshrink.models import build_model
from segshrink.prediction import Predictor, TorchBackend, open_backend
from segshrink.prediction.runtimes.onnx import OnnxNetwork

TORCH_FREE = (
    "",
    ".errors",
    ".files",
    ".machine",
    ".classes",
    ".tiling",
    ".imagery",
    ".config",
    ".prediction",
    ".report",
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    classes = ClassMap.build([("water", "#0000FF", None), ("land", "#00FF00", None), ("road", "#FF0000", None)])
    return build_model("unet", classes, options={"width": 4}).eval()


def tiny_onnx(path, *, metadata):
    node = helper.make_node("Identity", ["images"], ["logits"])
    shape = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        [node],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    value = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(value, metadata)
    onnx.save(value, path)
    return path


def run_without_torch(code):
    program = "import sys; sys.modules['torch'] = None\n" + code
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)


def test_opens_models_model_folders_and_run_folders(model, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1, 33, 20, 3), dtype=np.uint8)
    expected = TorchBackend(model, precision="32").run(image)
    model.save(tmp_path / "run" / "model")
    for source in (model, tmp_path / "run" / "model", str(tmp_path / "run")):
        backend = open_backend(source, precision="32")
        assert (backend.num_classes, backend.bands) == (3, 3)
        assert backend.classes == model.description.classes
        np.testing.assert_allclose(backend.run(image), expected, atol=1e-5)
        assert open_backend(backend) is backend
    assert Predictor(tmp_path / "run").classes.names == ("water", "land", "road")


def test_missing_source_says_so(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        open_backend(tmp_path / "nothing")
    with pytest.raises(FileError, match=r"nothing\.onnx does not exist"):
        open_backend(tmp_path / "nothing.onnx")


def test_other_files_say_so(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(ModelError, match="not a file of weights or is damaged"):
        open_backend(tmp_path / "weights.pth")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelError, match="can't be loaded by ONNX Runtime"):
        open_backend(tmp_path / "text.onnx")


def test_a_damaged_description_says_so(tmp_path):
    with pytest.raises(ModelError, match="damaged"):
        open_backend(tiny_onnx(tmp_path / "b.onnx", metadata={"segshrink": "{"}))
    with pytest.raises(ModelError, match="damaged"):
        open_backend(tiny_onnx(tmp_path / "c.onnx", metadata={"segshrink": '{"bands": 3}'}))


def test_float_onnx_takes_any_pixel_type(model, tmp_path):
    description = json.dumps(model.description.to_dict())
    backend = open_backend(tiny_onnx(tmp_path / "same.onnx", metadata={"segshrink": description}), threads=1)
    images = np.random.default_rng(0).integers(0, 9999, (2, 5, 7, 3), dtype=np.uint16)
    np.testing.assert_array_equal(backend.run(images), images.transpose(0, 3, 1, 2).astype(np.float32))
    with pytest.raises(ModelError, match=r"\(N, H, W, 3\)"):
        backend.run(images[..., :2])


def test_threads_share_one_session_of_onnxruntime(model, tmp_path, monkeypatch):
    backend = open_backend(export_onnx(model, tmp_path / "model.onnx"), threads=4, streams=4)
    opened, real, started = [], OnnxNetwork._opened, threading.Barrier(4)

    def noted(network, content, output):
        opened.append(output)
        return real(network, content, output)

    def classify(image):
        started.wait()
        return backend.classify(image)

    monkeypatch.setattr(OnnxNetwork, "_opened", noted)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(classify, [image] * 4))
    for answer in answers:
        np.testing.assert_array_equal(answer, TorchBackend(model, precision="32").classify(image))
    assert opened == ["classes"]


def test_rooms_below_the_backends_import_without_torch():
    lines = "\n".join(f"import segshrink{room}" for room in TORCH_FREE)
    result = run_without_torch(lines)
    assert result.returncode == 0, result.stderr


def test_model_folder_without_torch_names_the_extra(model, tmp_path):
    model.save(tmp_path / "model")
    result = run_without_torch(
        f"from segshrink.prediction import open_backend; open_backend({str(tmp_path / 'model')!r})"
    )
    assert result.returncode == 1
    assert "MissingExtraError" in result.stderr
    assert "[train]'" in result.stderr


def test_runtimes_that_do_not_suit_say_which_do(model, tmp_path):
    path = tiny_onnx(tmp_path / "same.onnx", metadata={"segshrink": json.dumps(model.description.to_dict())})
    with pytest.raises(ModelError, match="can't run in torch, but in onnxruntime or openvino"):
        open_backend(path, runtime="torch")
    with pytest.raises(ModelError, match="the model can't run in openvino, but in torch or torch-compile"):
        open_backend(model, runtime="openvino")
    with pytest.raises(UsageError, match="unknown runtime 'onxruntime'; did you mean 'onnxruntime'"):
        open_backend(path, runtime="onxruntime")
    with pytest.raises(ModelError, match="onnxruntime doesn't compute in bf16"):
        open_backend(path, precision="bf16")
    with pytest.raises(ModelError, match="precision 'fp16' is unknown"):
        open_backend(path, precision="fp16")


def test_every_backend_names_its_runtime_and_describes_its_model(model, tmp_path):
    path = tiny_onnx(tmp_path / "same.onnx", metadata={"segshrink": json.dumps(model.description.to_dict())})
    for source, runtime in ((model, "torch"), (path, "onnxruntime")):
        backend = open_backend(source, threads=1)
        assert (backend.runtime, backend.description) == (runtime, model.description)
