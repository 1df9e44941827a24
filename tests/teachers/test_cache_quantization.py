from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segshrink.losses import binary_kl, channel_kl
from segshrink.teachers.cache_quantization import NotFiniteError, decode, encode


def smooth_logits(*, classes: int, scale: float) -> torch.Tensor:
    """Logits (C, 96, 96) whose winner changes every few pixels."""
    generator = torch.Generator().manual_seed(classes)
    coarse = torch.randn(1, classes, 12, 12, generator=generator)
    return F.interpolate(coarse, size=(96, 96), mode="bicubic")[0] * scale


def decoded(logits: torch.Tensor) -> torch.Tensor:
    codes = torch.from_numpy(encode(logits.numpy())).permute(2, 0, 1)
    return decode(codes[None])[0]


def divergence(exact: torch.Tensor, other: torch.Tensor, temperature: float) -> float:
    p, q = (F.log_softmax(logits.double() / temperature, dim=0) for logits in (exact, other))
    return float((p.exp() * (p - q)).sum(dim=0).mean())


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 10.0, 25.0])
@pytest.mark.parametrize("classes", [2, 6, 21])
def test_a_softmax_can_hardly_tell_decoded_logits_from_exact_ones(classes: int, scale: float) -> None:
    exact = smooth_logits(classes=classes, scale=scale)
    other = decoded(exact)
    assert divergence(exact, other, 1) < 2e-4
    assert divergence(exact, other, 4) < 5e-5
    # Only classes less than 1/4000 apart may change places.
    first, second = exact.topk(2, dim=0).values
    clear = first - second > 1 / 4000
    assert torch.equal(exact.argmax(dim=0)[clear], other.argmax(dim=0)[clear])


def test_every_logit_keeps_its_value_to_half_a_step() -> None:
    exact = smooth_logits(classes=6, scale=5.0)
    assert exact.max() - exact.min() < 47
    gap = exact.max(dim=0).values - exact
    half_step = (gap.sqrt() + 1 / 64).square() - gap  # of gaps
    assert ((decoded(exact) - exact).abs() <= half_step + 1 / 8 + 1e-4).all()


def test_far_logits_end_at_the_range() -> None:
    exact = torch.tensor([[-1e30, -70.0, 2.0], [0.0, -500.0, 90.0]])
    other = decoded(exact.T.reshape(3, 1, 2)).reshape(3, 2).T
    assert other[0].tolist() == pytest.approx([2 - 63.5, 2 - 63.5, 2], abs=0.01)
    assert other[1].tolist() == pytest.approx([47.75 - 63.5, 47.75 - 63.5, 47.75], abs=0.01)


def test_losses_that_see_the_level_of_logits_keep_their_value() -> None:
    teacher = smooth_logits(classes=4, scale=4.0)
    student = teacher.flip(1)
    for loss in (channel_kl, binary_kl):
        exact = loss(student[None], teacher[None])
        assert loss(student[None], decoded(teacher)[None]).item() == pytest.approx(exact.item(), rel=5e-3)


def test_a_class_may_be_excluded_but_not_all() -> None:
    logits = smooth_logits(classes=3, scale=2.0)
    logits[1] = -torch.inf
    other = decoded(logits)
    assert torch.isfinite(other).all()
    assert F.softmax(other, dim=0)[1].max() < 1e-20
    assert torch.equal(other.argmax(dim=0), logits.argmax(dim=0))
    for bad in (torch.nan, torch.inf):
        spoiled = smooth_logits(classes=3, scale=2.0)
        spoiled[2, 70, 5] = bad
        with pytest.raises(NotFiniteError):
            encode(spoiled.numpy())
    with pytest.raises(NotFiniteError):
        encode(np.full((2, 3, 4), -np.inf, np.float32))
