"""Supervised losses against torch, formulas written out in numpy, and their promises when nothing is valid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss, JaccardLoss
from torch.nn import functional as F

from segshrink.errors import ConfigError, ModelError
from segshrink.losses import boundary, cross_entropy, dice, focal, jaccard, lovasz, ohem_cross_entropy

LOSSES = [cross_entropy, jaccard, dice, lovasz, focal, ohem_cross_entropy, boundary]


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


@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize(("loss", "library"), [(jaccard, JaccardLoss), (dice, DiceLoss)])
def test_overlap_losses_and_their_gradients_are_those_of_the_library(batch, loss, library, smooth):
    logits, labels = batch
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda given: loss(given, labels, smooth=smooth), (logits,))
    valid = labels != 255
    for layout in (torch.contiguous_format, torch.channels_last):
        narrow = logits.detach().bfloat16().to(memory_format=layout).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(narrow, labels, smooth=smooth)
        value.backward()
        columns = narrow.detach().float().movedim(1, 0)[:, valid].unsqueeze(0).requires_grad_()
        expected = library(mode="multiclass", smooth=smooth)(columns, labels[valid].unsqueeze(0))
        expected.backward()
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)
        found = narrow.grad.movedim(1, 0)[:, valid].float()
        torch.testing.assert_close(found, columns.grad[0], rtol=1e-2, atol=1e-6)  # bf16 has 8 bits
        assert not narrow.grad.movedim(1, 0)[:, ~valid].any()


def test_lovasz_of_hard_answers_is_one_minus_the_intersection_over_union():
    labels = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 255]]])
    answers = torch.tensor([[[0, 1, 1, 1], [0, 0, 2, 2]]])
    logits = 1000 * F.one_hot(answers, 4).movedim(-1, 1).double()
    # Class 0: 3 of 4 pixels, none more; class 1: 2 shared of 3 + 1; classes 2 and 3 have no true pixel.
    assert lovasz(logits, labels).item() == pytest.approx((1 / 4 + 2 / 4) / 2)


def test_focal_is_its_formula(batch):
    logits, labels = batch
    chance = logits.softmax(1).gather(1, labels.masked_fill(labels == 255, 0).unsqueeze(1)).squeeze(1)[labels != 255]
    for gamma in (0.0, 0.5, 2.0):
        expected = ((1 - chance) ** gamma * -chance.log()).mean()
        assert focal(*batch, gamma=gamma).item() == pytest.approx(expected.item(), rel=1e-9)
    assert focal(*batch, gamma=0).item() == pytest.approx(cross_entropy(*batch).item(), rel=1e-9)


def test_only_hard_pixels_and_a_least_share_count():
    chances = torch.tensor([0.9, 0.8, 0.6, 0.1], dtype=torch.float64)
    logits = torch.stack([chances.log(), (1 - chances).log()]).reshape(1, 2, 2, 2)
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    mean = {number: float(-chances.log()[4 - number :].mean()) for number in (1, 2, 3, 4)}
    assert ohem_cross_entropy(logits, labels).item() == pytest.approx(mean[2])
    assert ohem_cross_entropy(logits, labels, threshold=0.5).item() == pytest.approx(mean[1])
    assert ohem_cross_entropy(logits, labels, threshold=0.5, least=0.7).item() == pytest.approx(mean[3])
    assert ohem_cross_entropy(logits, labels, threshold=1.0).item() == pytest.approx(mean[4])


def test_boundaries_match_within_their_tolerance():
    labels = torch.zeros(1, 12, 12, dtype=torch.long)
    labels[0, :, 6:] = 1
    moved = {shift: 1000.0 * F.one_hot(labels.roll(shift, 2), 2).movedim(-1, 1).double() for shift in (0, 1, 2, 3)}
    for maps in moved.values():
        maps[..., :4] = moved[0][..., :4]  # what comes in at the other side
    assert boundary(moved[0], labels).item() == 0
    # Borders are 1 pixel wide on either side of the edge; a window of 5 reaches 2 further.
    assert boundary(moved[2], labels).item() == 0
    assert boundary(moved[3], labels).item() == pytest.approx(1)
    assert boundary(moved[3], labels, tolerance=7).item() == 0
    assert boundary(moved[1], labels, tolerance=3).item() == 0
    assert boundary(torch.zeros_like(moved[0]), labels).item() == pytest.approx(1)
    assert boundary(moved[1], torch.zeros_like(labels)).item() == 0


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


@pytest.mark.parametrize(
    ("loss", "option", "value"),
    [(focal, "gamma", -1), (ohem_cross_entropy, "least", 0), (ohem_cross_entropy, "threshold", 2)]
    + [(boundary, "tolerance", side) for side in (1, 4)],
)
def test_refuses_options_out_of_range(batch, loss, option, value):
    with pytest.raises(ConfigError, match=f"^{option} of {loss.__name__} must be .* found {value}$"):
        loss(*batch, **{option: value})


def test_refuses_a_wrong_number_of_class_weights(batch):
    with pytest.raises(ConfigError, match=r"one number per class \(4\), found 2"):
        cross_entropy(*batch, class_weights=[1.0, 2.0])
