from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import openvino
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.config import Adapter, TeacherSource
from segshrink.errors import ModelError
from segshrink.models import build_model
from segshrink.teachers import Augmented, ClassMapping, Ensemble, Teacher, TorchTeacher, low_precision, open_teacher
from segshrink.teachers.low_precision import LowPrecisionTeacher
from segshrink.teachers.torch_teacher import AdaptedNetwork

pytest.importorskip("nncf", reason="NNCF is not installed")

needs_bf16 = pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="OpenVINO computes in bf16 only where the processor does",
)
CLASSES = ClassMap.build([("Land", None, None), ("Water", None, None), ("Road", None, None)])
STUDENT = ClassMap.build([("Road", None, None), ("Sky", None, None), ("Land", None, None)])
TO_STUDENT = ClassMapping(((2,), (), (0,)))


@pytest.fixture
def teacher() -> TorchTeacher:
    torch.manual_seed(0)
    model = build_model("unet", CLASSES, options={"width": 8, "depth": 2})
    # Without a batch's statistics the logits of random weights hardly differ.
    with torch.no_grad():
        model.train()(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    return TorchTeacher(model, STUDENT, TO_STUDENT)


@pytest.fixture
def images() -> Tensor:
    coarse = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1)) * 255
    return nn.functional.interpolate(coarse, size=(45, 70), mode="bilinear").to(torch.uint8)


@pytest.fixture
def tiles(images: Tensor) -> list[NDArray[np.uint8]]:
    return [image.numpy() for image in images]


def close(found: Tensor, expected: Tensor, share: float) -> bool:
    """Whether logits differ by no more than a share of their spread, on an average; -inf where expected."""
    known = torch.isfinite(expected)
    assert torch.equal(torch.isfinite(found), known)
    return float((found - expected)[known].abs().mean()) <= share * float(expected[known].std())


@pytest.mark.parametrize(("precision", "share"), [pytest.param("bf16", 0.02, marks=needs_bf16), ("int8", 0.06)])
def test_it_answers_nearly_as_the_network_of_torch_does(
    teacher: TorchTeacher, images: Tensor, tiles: list[NDArray[np.uint8]], precision: Any, share: float
) -> None:
    expected = teacher.logits(images)
    lowered = LowPrecisionTeacher(teacher, precision, tiles)
    found = lowered.logits(images)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert close(found, expected, share)
    assert not torch.equal(found, expected)
    scene = np.ascontiguousarray(images[0].permute(1, 2, 0))
    assert close(torch.from_numpy(lowered.scene_logits(scene, "scene")), expected[0], share)
    assert (lowered.known, lowered.classes, lowered.name) == (teacher.known, teacher.classes, teacher.name)
    assert lowered.parameters == teacher.parameters
    assert lowered.module is None


@needs_bf16
def test_it_can_be_asked_in_a_training_of_mixed_precision(teacher: TorchTeacher, images: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = LowPrecisionTeacher(teacher, "bf16").logits(images)
    assert close(found, teacher.logits(images), 0.05)


def test_identity_depends_on_teacher_precision_and_tiles(teacher: TorchTeacher, tiles: list[NDArray[np.uint8]]) -> None:
    def identity(precision: Literal["bf16", "int8"], seen: list[NDArray[np.uint8]]) -> str:
        return LowPrecisionTeacher(teacher, precision, seen).identity

    assert identity("int8", tiles) == identity("int8", tiles)
    assert identity("bf16", tiles) == identity("bf16", tiles[:1])
    assert len({teacher.identity, identity("bf16", tiles), identity("int8", tiles), identity("int8", tiles[:1])}) == 4
    before = identity("bf16", tiles)
    with torch.no_grad():
        next(teacher.module.parameters()).add_(1)
    assert identity("bf16", tiles) != before


def write_edges(path: Path) -> Path:
    """Write a net of 16 x 16 pixels with three logits as an ONNX file."""
    weights = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "weights"], ["scores"], pads=[1, 1, 1, 1])],
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, 16, 16])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("precision", [pytest.param("bf16", marks=needs_bf16), "int8"])
@pytest.mark.parametrize("fit", ["letterbox", "tile"])
def test_a_file_is_asked_as_its_adapter_says(
    tmp_path: Path, images: Tensor, tiles: list[NDArray[np.uint8]], fit: Any, precision: Any
) -> None:
    path = write_edges(tmp_path / "edges.onnx")
    adapter = Adapter(fit=fit, order="bgr", mean=[90, 100, 110], std=60)
    own = open_teacher(TeacherSource(source=f"onnx:{path}", adapter=adapter), CLASSES, bands=3)
    found = LowPrecisionTeacher(own, precision, tiles).logits(images)
    assert close(found, own.logits(images), 0.05)


def test_networks_that_cannot_be_exported_are_refused(teacher: TorchTeacher) -> None:
    foreign = AdaptedNetwork(nn.Conv2d(3, 3, 1), Adapter(), bands=3, classes=3, name="theirs:net")
    with pytest.raises(ModelError, match=r"theirs:net .* export it to ONNX and give the file as onnx:FILE"):
        LowPrecisionTeacher(TorchTeacher(foreign, CLASSES, name="theirs:net"), "bf16")
    several: Teacher = Augmented(teacher, flips=True)
    with pytest.raises(ModelError, match="has no network"):
        LowPrecisionTeacher(several, "bf16")


def test_parts_are_lowered_where_they_can_be(
    teacher: TorchTeacher, images: Tensor, tiles: list[NDArray[np.uint8]], caplog: pytest.LogCaptureFixture
) -> None:
    foreign = TorchTeacher(nn.Conv2d(3, 3, 1), STUDENT, name="theirs:net")
    several = Augmented(Ensemble([teacher, foreign], [1.0, 3.0]), flips=True)
    lowered = low_precision._lowered(several, "int8", tiles)
    assert isinstance(lowered, Augmented)
    assert lowered.views == several.views
    assert isinstance(lowered.parts[0], Ensemble)
    assert [type(part) for part in lowered.parts[0].parts] == [LowPrecisionTeacher, TorchTeacher]
    assert lowered.parts[0].weights == (1.0, 3.0)
    assert lowered.identity != several.identity
    assert "theirs:net is a network that segshrink can't export" in caplog.text
    assert close(lowered.logits(images), several.logits(images), 0.1)
    assert "teacher runs in int8 through OpenVINO" in caplog.text
    assert low_precision.in_precision(several, "auto", None) is several  # type: ignore[arg-type]


def test_a_teacher_that_would_change_its_mind_goes_on_as_it_is(
    teacher: TorchTeacher,
    images: Tensor,
    tiles: list[NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(low_precision, "_LEAST_AGREEMENT", 1.01)
    lowered = LowPrecisionTeacher(teacher, "int8", tiles)
    assert torch.equal(lowered.logits(images), teacher.logits(images))
    assert "teacher runs as it is" in caplog.text
    assert "% of pixels keep their class" in caplog.text


@needs_bf16
def test_a_model_with_an_adapter_is_asked_as_it_says(teacher: TorchTeacher, images: Tensor) -> None:
    adapter = Adapter(size=32, fit="letterbox", order="bgr")
    module = AdaptedNetwork(teacher.module, adapter, bands=3, classes=3, scaled=False)
    own = TorchTeacher(module, STUDENT, TO_STUDENT)
    assert close(LowPrecisionTeacher(own, "bf16").logits(images), own.logits(images), 0.05)


@pytest.mark.parametrize(("deed", "reason"), [("raises", "no kernel for this"), ("aborts", "SIGABRT")])
def test_an_int8_graph_that_fails_on_this_machine_is_named_and_not_taken(
    teacher: TorchTeacher,
    images: Tensor,
    tiles: list[NDArray[np.uint8]],
    stand_in: Any,
    caplog: pytest.LogCaptureFixture,
    deed: str,
    reason: str,
) -> None:
    stand_in("openvino", deed)
    assert torch.equal(LowPrecisionTeacher(teacher, "int8", tiles).logits(images), teacher.logits(images))
    (message,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert all(text in message for text in ("runs as it is, not in int8", "openvino on this machine", reason))
