from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from segshrink.classes import ClassMap
from segshrink.models import build_model
from segshrink.models.memory_efficient_relu import MemoryEfficientReLU6, use_memory_efficient_relu

CLASSES = ClassMap.build([("Land", None, None), ("Water", None, None)])


def kept_bytes(network: nn.Module, images: torch.Tensor) -> int:
    """Bytes that a forward keeps for the backward pass, every storage once."""
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(images)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_network_learns_the_same_and_keeps_less(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = build_model("mobile", CLASSES, options={"width": 0.25, "blocks": 7}).train()
    lean = copy.deepcopy(plain)
    use_memory_efficient_relu(lean)
    assert any(isinstance(module, MemoryEfficientReLU6) for module in lean.modules())
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        assert kept_bytes(lean, images) < 0.9 * kept_bytes(plain, images)
        results = [network(images) for network in (plain, lean)]
    assert torch.equal(*results)
    for result in results:
        result.square().mean().backward()
    for ours, theirs in zip(lean.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert lean.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("inplace", [False, True])
def test_values_on_the_borders_get_the_gradient_of_torch(inplace: bool) -> None:
    values = torch.tensor([-torch.inf, -1.0, -0.0, 0.0, 1e-30, 3.0, 6.0, 6.0001, torch.inf, torch.nan])
    found = []
    for kind in (nn.ReLU6, MemoryEfficientReLU6):
        given = values.clone().requires_grad_()
        result = kind(inplace)(given * 1)
        result.sum().backward()
        found.append((result.detach(), given.grad))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours.nan_to_num(9), theirs.nan_to_num(9))


def test_without_gradients_it_is_torch_itself() -> None:
    values = torch.tensor([-1.0, 2.0, 7.0])
    with torch.no_grad():
        result = MemoryEfficientReLU6(inplace=True)(values)
    assert result is values
    assert values.tolist() == [0, 2, 6]
