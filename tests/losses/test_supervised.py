"""Supervised losses against torch, formulas written out in numpy, and their promises when nothing is valid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segshrink.errors import ConfigError, ModelError
from segshrink.losses import cross_entropy, dice, jaccard

LOSSES = [cross_entropy, jaccard, dice]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 6, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 6, 5), generator=generator)  # class 3 never occurs
    labels[0, :2] = 255
    return logits, labels


@pytest.mark.parametrize("weights", [None, [1.0, 0.2, 3.0, 2.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(batch, weights, smoothing):
    logits, labels = batch
    expected = F.cross_entropy(
        logits,
        labels,
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        ignore_index=255,
        label_smoothing=smoothing,
    )
    found = cross_entropy(logits, labels.to(torch.uint8), class_weights=weights, label_smoothing=smoothing)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_0_where_nothing_weighs(smoothing):
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = cross_entropy(
        logits, torch.ones(1, 4, 4, dtype=torch.long), class_weights=[1.0, 0.0, 1.0], label_smoothing=smoothing
    )
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def overlaps(logits, labels):
    """Σ p·y, Σ p, Σ y per class over the valid pixels, in numpy."""
    exponentials = np.exp(logits.numpy())
    probabilities = np.moveaxis(exponentials / exponentials.sum(1, keepdims=True), 1, -1)[labels.numpy() != 255]
    truth = np.eye(logits.shape[1])[labels.numpy()[labels.numpy() != 255]]
    return (probabilities * truth).sum(0), probabilities.sum(0), truth.sum(0)


def test_jaccard_is_its_formula(batch):
    hits, predicted, truth = overlaps(*batch)
    expected = ((1 - hits / (predicted + truth - hits)) * (truth > 0)).mean()
    assert jaccard(*batch).item() == pytest.approx(expected, rel=1e-9)


def test_dice_is_its_formula(batch):
    hits, predicted, truth = overlaps(*batch)
    expected = ((1 - 2 * hits / (predicted + truth)) * (truth > 0)).mean()
    assert dice(*batch).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_is_zero_with_a_gradient_of_zero_when_nothing_is_valid(loss):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), 255))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_cross_entropy_is_zero_when_only_classes_of_weight_zero_occur():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    value = cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.long), class_weights=[0.0, 1.0, 1.0])
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_have_no_influence(loss, batch):
    logits, labels = batch
    changed = logits.clone().requires_grad_()
    with torch.no_grad():
        changed[0, :, :2] += 100 * torch.randn_like(changed[0, :, :2])
    value = loss(changed, labels)
    value.backward()
    assert value.item() == pytest.approx(loss(logits, labels).item(), rel=1e-12)
    assert not changed.grad[0, :, :2].any()
    assert changed.grad[0, :, 2:].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_is_finite_at_large_logits(loss, batch):
    logits = (batch[0].float() * 40).requires_grad_()
    value = loss(logits, batch[1])
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_is_float32_inside_autocast_and_float64_stays(loss, batch):
    logits, labels = batch
    half = logits.to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == loss(half.detach().float(), labels).item()
    assert loss(logits, labels).dtype == torch.float64


@pytest.mark.parametrize("loss", LOSSES)
def test_refuses_labels_of_another_size(loss):
    with pytest.raises(ModelError, match="labels of shape"):
        loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 5, dtype=torch.long))


def test_refuses_a_wrong_number_of_class_weights(batch):
    with pytest.raises(ConfigError, match=r"one number per class \(4\), found 2"):
        cross_entropy(*batch, class_weights=[1.0, 2.0])
