"""Losses on relations against the field's reference implementations, slow formulas and their promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segshrink.errors import ConfigError, ModelError
from segshrink.losses import (
    channel_correlation,
    cross_image_relation,
    intra_class_variation,
    pairwise_similarity,
    relations,
)


def random_features(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_labels(*shape, classes=4, seed=0):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


# Loss by arrays and hyper-parameters; tolerances of value and gradient in float64. The reference code of pairwise
# similarity computes in float32 whatever its input, that of cross-image relations adds up its loss in float32.
ORACLES = {
    "ickd_torchdistill": (lambda s, t, arrays, hyper: channel_correlation(s, t), 1e-9, 1e-9),
    "skd_pairwise": (lambda s, t, arrays, hyper: pairwise_similarity(s, t, scale=hyper["scale"]), 1e-5, 1e-5),
    "ifvd_official": (
        lambda s, t, arrays, hyper: intra_class_variation(
            s, t, torch.tensor(arrays["in_labels"]), num_classes=hyper["classes"]
        ),
        1e-9,
        1e-9,
    ),
    "cirkd_minibatch": (
        lambda s, t, arrays, hyper: cross_image_relation(s, t, temperature=hyper["T"], pool=1 + hyper["pooling"]),
        1e-7,
        1e-9,
    ),
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", ORACLES)
def test_agrees_with_the_reference_implementation(oracles: Path, case, dtype, memory_format):
    loss_function, *tolerances = ORACLES[case]
    of_value, of_gradient = tolerances if dtype == torch.float64 else (1e-4, 1e-4)
    arrays = np.load(oracles / f"{case}.npz")
    for setting in json.loads((oracles / "manifest.json").read_text())[case]["settings"]:
        student = torch.tensor(arrays["in_s"], dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
        loss = loss_function(student, torch.tensor(arrays["in_t"], dtype=dtype), arrays, setting["hyper"])
        loss.backward()
        expected = arrays[setting["grad_key"]]
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(float(arrays[setting["loss_key"]]), rel=of_value)
        assert np.abs(student.grad.numpy() - expected).max() <= of_gradient * np.abs(expected).max()


def unit(vector):
    return vector / np.sqrt((vector**2).sum())


def slow_correlation(features):
    images = features.reshape(*features.shape[:2], -1)
    return np.array([[unit(np.array([row @ other for other in image])) for row in image] for image in images])


@pytest.mark.parametrize("shape", [(1, 4, 3, 5), (3, 5, 4, 4)])
def test_channel_correlation_is_its_formula(shape):
    student, teacher = random_features(*shape, seed=1), random_features(*shape, seed=2)
    total = ((slow_correlation(student.numpy()) - slow_correlation(teacher.numpy())) ** 2).sum()
    assert channel_correlation(student, teacher).item() == pytest.approx(total / (shape[1] * shape[0] ** 2), rel=1e-12)


def slow_nodes(image, region):
    _, height, width = image.shape
    return [
        image[:, top : top + region[0], left : left + region[1]].max(axis=(1, 2))
        for top in range(0, height, region[0])
        for left in range(0, width, region[1])
    ]


@pytest.mark.parametrize(
    ("size", "scale", "region"),
    [
        ((8, 8), 0.5, (4, 4)),
        ((7, 9), 0.5, (3, 4)),
        ((8, 6), 0.25, (2, 1)),
        ((5, 4), 0.3, (1, 1)),
        ((4, 6), 0.1, (1, 1)),
    ],
)
def test_pairwise_similarity_is_its_formula(size, scale, region):
    student, teacher = random_features(2, 3, *size, seed=1).requires_grad_(), random_features(2, 5, *size, seed=2)
    total, nodes = 0.0, 0
    for pair in zip(student.detach().numpy(), teacher.numpy(), strict=True):
        own, other = ([unit(node) for node in slow_nodes(image, region)] for image in pair)
        nodes = len(own)
        total += sum((other[i] @ other[j] - own[i] @ own[j]) ** 2 for i in range(nodes) for j in range(nodes))
    loss = pairwise_similarity(student, teacher, scale=scale)
    assert loss.item() == pytest.approx(total / nodes**2 / 2, rel=1e-6)


def test_pairwise_similarity_holds_the_lengths_constant_in_its_gradient():
    student, teacher = random_features(2, 3, 4, 4, seed=1), random_features(2, 5, 4, 4, seed=2)
    nodes = F.max_pool2d(student, 2).flatten(2)
    length = nodes.norm(dim=1, keepdim=True) + 1e-8
    other = F.normalize(F.max_pool2d(teacher, 2).flatten(2), dim=1)

    student.requires_grad_()
    own = F.max_pool2d(student, 2).flatten(2) / length
    (expected,) = torch.autograd.grad(((other.mT @ other - own.mT @ own) ** 2).mean(), student)
    pairwise_similarity(student, teacher).backward()
    torch.testing.assert_close(student.grad, expected, rtol=1e-6, atol=1e-9)


def slow_cosines(image, labels, classes):
    cosines = np.ones(labels.shape)
    for row, column in np.ndindex(*labels.shape):
        if labels[row, column] in classes:
            inside = labels == labels[row, column]
            center = image[:, inside].sum(axis=1) / (inside.sum() + 1e-6)
            cosines[row, column] = unit(image[:, row, column]) @ unit(center)
    return cosines


@pytest.mark.parametrize(
    ("size", "label_size", "classes", "batch"),
    [((6, 5), (6, 5), 4, 2), ((6, 5), (13, 17), 4, 1), ((5, 7), (3, 4), 6, 3), ((4, 4), (16, 16), 1, 2)],
)
def test_intra_class_variation_is_its_formula(size, label_size, classes, batch):
    student, teacher = random_features(batch, 3, *size, seed=1), random_features(batch, 5, *size, seed=2)
    labels = random_labels(batch, *label_size, classes=max(2, classes - 1))
    labels[0, : label_size[0] // 3] = 255
    labels[-1, -1, -1] = classes + 3
    rows = np.arange(size[0]) * label_size[0] // size[0]
    columns = np.arange(size[1]) * label_size[1] // size[1]
    small = labels.numpy()[:, rows][:, :, columns]
    expected = np.mean(
        [
            (slow_cosines(s, y, range(classes)) - slow_cosines(t, y, range(classes))) ** 2
            for s, t, y in zip(student.numpy(), teacher.numpy(), small, strict=True)
        ]
    )
    loss = intra_class_variation(student, teacher, labels, num_classes=classes)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert loss.item() > 0


def slow_relation(student, teacher, temperature, pool):
    def directions(features):
        height, width = features.shape[2:]
        squares = [
            features[:, :, top : top + pool, left : left + pool].mean(axis=(2, 3))
            for top in range(0, height, pool)
            for left in range(0, width, pool)
        ]
        return np.stack([[unit(pixel) for pixel in image] for image in np.stack(squares, axis=1)])

    def distribution(pixel, others):
        strength = np.exp(others @ pixel / temperature)
        return strength / strength.sum()

    own, other = directions(student), directions(teacher)
    images, pixels = own.shape[:2]
    total = 0.0
    for i, j, pixel in np.ndindex(images, images, pixels):
        p_student = distribution(own[i, pixel], own[j])
        p_teacher = distribution(other[i, pixel], other[j])
        total += (p_teacher * np.log(p_teacher / p_student)).sum() / pixels
    return total / images**2


@pytest.mark.parametrize(
    ("batch", "size", "temperature", "pool"),
    [(1, (4, 3), 0.1, 1), (3, (4, 4), 1.0, 2), (2, (5, 7), 0.3, 2), (2, (7, 4), 0.1, 3), (2, (3, 3), 0.5, 4)],
)
def test_cross_image_relation_is_its_formula(batch, size, temperature, pool):
    student, teacher = random_features(batch, 3, *size, seed=1), random_features(batch, 5, *size, seed=2)
    loss = cross_image_relation(student, teacher, temperature=temperature, pool=pool)
    expected = slow_relation(student.numpy(), teacher.numpy(), temperature, pool)
    assert loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-15)


@pytest.mark.parametrize(
    "loss",
    [
        channel_correlation,
        lambda s, t: intra_class_variation(s, t, random_labels(2, 6, 6), num_classes=3),
        cross_image_relation,
        lambda s, t: 3 * cross_image_relation(s, t, temperature=2.0, pool=2),
    ],
)
def test_gradient_is_the_derivative(loss):
    student, teacher = random_features(2, 3, 3, 4, seed=1).requires_grad_(), random_features(2, 3, 2, 2, seed=2)
    assert torch.autograd.gradcheck(lambda features: loss(features, teacher), (student,))


def test_cross_image_relation_does_not_depend_on_its_blocks(monkeypatch):
    teacher = random_features(3, 5, 4, 4, seed=2)
    outcomes = []
    for elements in (2**22, 48 * 7, 1):
        monkeypatch.setattr(relations, "BLOCK_ELEMENTS", elements)
        student = random_features(3, 4, 4, 4, seed=1).requires_grad_()
        loss = cross_image_relation(student, teacher)
        loss.backward()
        outcomes.append((loss.detach(), student.grad))
    torch.testing.assert_close(outcomes[1], outcomes[0])
    torch.testing.assert_close(outcomes[2], outcomes[0])


def test_cross_image_relation_can_be_backpropagated_twice_and_judged_without_gradient():
    student, teacher = random_features(2, 3, 3, 3, seed=1).requires_grad_(), random_features(2, 3, 3, 3, seed=2)
    loss = cross_image_relation(student, teacher)
    loss.backward(retain_graph=True)
    once = student.grad.clone()
    (loss * 2).backward()
    torch.testing.assert_close(student.grad, once * 3)
    with torch.no_grad():
        assert cross_image_relation(student, teacher).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        channel_correlation,
        pairwise_similarity,
        lambda s, t: intra_class_variation(s, t, random_labels(2, 4, 4), num_classes=4),
        cross_image_relation,
    ],
)
def test_is_blind_to_scale_and_zero_for_the_teachers_own_features(loss):
    student, teacher = random_features(2, 3, 4, 4, seed=1), random_features(2, 3, 4, 4, seed=2)
    expected = loss(student, teacher).item()
    assert expected > 0
    assert loss(student * 7, teacher * 0.3).item() == pytest.approx(expected, rel=1e-6)
    assert loss(student, student * 1e6).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("ignore_index", [255, 2, -1])
def test_pixels_without_a_class_have_no_influence_but_stay_in_the_mean(ignore_index):
    student, teacher = random_features(1, 3, 4, 4, seed=1), random_features(1, 5, 4, 4, seed=2)
    labels = random_labels(1, 4, 4, classes=2)
    half = intra_class_variation(student[:, :, :2], teacher[:, :, :2], labels[:, :2], num_classes=4)
    labels[:, 2:] = ignore_index
    student[:, :, 2:] = torch.nan
    student.requires_grad_()
    loss = intra_class_variation(student, teacher, labels, num_classes=4, ignore_index=ignore_index)
    loss.backward()
    assert loss.item() == pytest.approx(half.item() / 2, rel=1e-12)
    assert not student.grad[:, :, 2:].any()
    assert torch.isfinite(student.grad).all()


def test_is_zero_with_a_gradient_of_zero_when_no_pixel_has_a_class():
    student = random_features(2, 3, 4, 4).float().requires_grad_()
    loss = intra_class_variation(student, torch.randn(2, 5, 4, 4), torch.full((2, 8, 8), 255), num_classes=4)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_accepts_labels_of_any_integer_type():
    student, teacher = random_features(2, 3, 4, 4, seed=1), random_features(2, 3, 4, 4, seed=2)
    labels = random_labels(2, 9, 8)
    labels[0, :4] = 255
    values = {
        intra_class_variation(student, teacher, labels.to(dtype), num_classes=4).item()
        for dtype in (torch.int64, torch.int32, torch.uint8)
    }
    assert len(values) == 1


@pytest.mark.parametrize("labels", [torch.zeros(1, 4, 4), torch.zeros(2, 1, 4, 4), torch.zeros(4, 4)])
def test_refuses_labels_of_other_images(labels):
    with pytest.raises(ModelError, match="same 2 images"):
        intra_class_variation(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), labels, num_classes=3)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda s, t: pairwise_similarity(s, t, scale=0), "above 0 and at most 1, found 0"),
        (lambda s, t: pairwise_similarity(s, t, scale=2), "above 0 and at most 1, found 2"),
        (lambda s, t: cross_image_relation(s, t, temperature=0), "above 0, found 0"),
        (lambda s, t: cross_image_relation(s, t, pool=0), "at least 1, found 0"),
        (lambda s, t: cross_image_relation(s, t, pool=1.5), r"integer of at least 1, found 1\.5"),
        (lambda s, t: intra_class_variation(s, t, torch.zeros(1, 2, 2), num_classes=0), "at least 1, found 0"),
    ],
)
def test_refuses_options_out_of_range(loss, message):
    with pytest.raises(ConfigError, match=message):
        loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
