from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.prediction import TorchBackend

CLASSES = ClassMap.build([("one", None, None), ("two", None, None)])


class Net(nn.Module):
    """Convolution, batch norm, dropout; remembers what it was given."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.frozen = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Conv2d(8, outputs, 1)
        self.seen: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return self.head(self.drop(self.frozen(self.norm(self.first(images.float() / 255)))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net().train()
    net.frozen.eval()
    return net


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 9, 13, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def computing_in_bf16(monkeypatch):
    """PyTorch emulates bf16 where a processor lacks it; whether it does changes speed alone."""
    monkeypatch.setattr("segshrink.prediction.runtimes.torch.computes_in_bf16", lambda _: True)


def backend_of(net, precision="32"):
    return TorchBackend(net, precision=precision, classes=CLASSES, bands=3)


def test_runs_in_evaluation_mode_and_restores_every_flag(net, images):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    backend = backend_of(net)
    first, second = backend.run(images), backend.run(images)
    np.testing.assert_array_equal(first, second)  # dropout was off
    assert {name: module.training for name, module in net.named_modules()} == {
        "": True, "first": True, "norm": True, "frozen": False, "drop": True, "head": True,
    }  # fmt: skip
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    net.eval()
    with torch.no_grad():
        expected = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(first, expected, atol=1e-6)


def test_flags_are_restored_after_a_failure(net, images):
    net.head = nn.Conv2d(5, 2, 1)
    with pytest.raises(RuntimeError):
        backend_of(net).run(images)
    assert net.training
    assert not net.frozen.training


def test_images_arrive_raw_and_channels_last(net, images):
    backend_of(net).run(images)
    assert net.seen.dtype == torch.uint8
    assert net.seen.shape == (2, 3, 9, 13)
    assert net.seen.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64])
def test_other_pixel_types_keep_their_values(net, images, dtype):
    wide = images.astype(dtype)
    np.testing.assert_allclose(backend_of(net).run(wide), backend_of(net).run(images), atol=1e-6)


def test_read_only_and_mirrored_arrays_are_fine(net, images):
    images.setflags(write=False)
    backend = backend_of(net)
    backend.run(images)
    np.testing.assert_allclose(backend.run(images[:, ::-1]), backend.run(images[:, ::-1].copy()), atol=1e-6)


def test_bf16_is_near_and_fp32_ignores_an_outer_autocast(net, images):
    exact = backend_of(net).run(images)
    rounded = backend_of(net, "bf16").run(images)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.05
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(backend_of(net).run(images), exact)


def test_auto_is_one_of_the_two(net, images):
    candidates = [backend_of(net, name).run(images) for name in ("32", "bf16")]
    found = backend_of(net, "auto").run(images)
    assert any(np.array_equal(found, candidate) for candidate in candidates)


def test_training_goes_on_after_a_run_inside_autocast(net, images):
    """Weights cast under inference mode must not stay in autocast's cache, or the backward pass fails."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        backend_of(net, "bf16").run(images)
        net(torch.from_numpy(images).permute(0, 3, 1, 2)).float().sum().backward()
    assert net.first.weight.grad is not None


def test_wrong_channel_count_says_so(images):
    with pytest.raises(ModelError, match=r"\(N, 2, H, W\) is expected"):
        backend_of(Net(outputs=5)).run(images)


def test_wrong_bands_say_so(net, images):
    with pytest.raises(ModelError, match=r"\(N, H, W, 3\)"):
        backend_of(net).run(images[..., :1])


def test_module_without_description_needs_classes(net):
    with pytest.raises(ModelError, match="classes"):
        TorchBackend(net)


def test_unknown_precision_says_so(net):
    with pytest.raises(ModelError, match="fp16"):
        backend_of(net, "fp16")


def test_classes_are_the_most_likely_ones_and_the_first_of_equals(net, images):
    with torch.no_grad():
        net.head.weight[1] = net.head.weight[0]
        net.head.bias[1] = net.head.bias[0] + torch.tensor(0.0)
    assert not backend_of(net).classify(images).any()
    with torch.no_grad():
        net.head.weight[1] *= -1
    backend = backend_of(net)
    found = backend.classify(images)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, backend.run(images).argmax(axis=1))
    assert 0 < found.mean() < 1


def test_threads_are_those_asked_for_while_it_runs(net, images):
    seen = []
    net.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    TorchBackend(net, precision="32", threads=before + 1, classes=CLASSES, bands=3).run(images)
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_a_compiled_model_leaves_the_model_alone(net, images, monkeypatch):
    expected = backend_of(net).run(images)
    compiled = []

    def fake_compile(module):
        compiled.append(module)
        return lambda batch: module(batch)

    monkeypatch.setattr(torch, "compile", fake_compile)
    backend = TorchBackend(net, precision="32", compiled=True, classes=CLASSES, bands=3)
    np.testing.assert_array_equal(backend.run(images), expected)
    assert (backend.runtime, compiled, backend.model) == ("torch-compile", [net], net)


def test_what_torch_cannot_compile_says_so(net, images, monkeypatch):
    def failing(batch):
        raise torch._dynamo.exc.Unsupported("no C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", lambda module: failing)
    backend = TorchBackend(net, precision="32", compiled=True, classes=CLASSES, bands=3)
    with pytest.raises(ModelError, match=r"torch can't compile the model \(no C\+\+ compiler\); use runtime torch"):
        backend.run(images)


def test_a_device_without_bf16_says_so(net, monkeypatch):
    monkeypatch.setattr("segshrink.prediction.runtimes.torch.computes_in_bf16", lambda device: False)
    with pytest.raises(ModelError, match="cpu doesn't compute in bf16"):
        backend_of(net, "bf16")
