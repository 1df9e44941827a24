"""Scalings of pixels, and the teacher's outputs under an input variant."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from segshrink.doctor.input_variants import InputVariant, Scaling, VariantScores, likely_scalings, outputs, unchanged
from segshrink.doctor.sample import Sample
from segshrink.models import SegmentationModel
from segshrink.teachers import TorchTeacher


def test_scalings_follow_and_undo_each_other() -> None:
    images = torch.randint(0, 256, (1, 3, 2, 2), generator=torch.Generator().manual_seed(0)).float()
    one, two = Scaling("", (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)), Scaling("", (1.0, 2.0, 3.0), (0.5, 0.25, 4.0))
    assert torch.allclose(one.then(two)(images), two(one(images)), atol=1e-4)
    assert torch.allclose(one.inverse()(one(images)), images, atol=1e-4)
    assert torch.equal(one.reversed()(images.flip(1)), one(images).flip(1))
    assert one.then(one.inverse()).like(unchanged(3))
    assert not one.like(unchanged(3))


def test_likely_scalings_give_a_network_every_usual_scaling_once(sample: Sample) -> None:
    inner = Scaling("", (127.5,) * 3, (64.0,) * 3)
    images = sample.images[:2]
    seen = [inner(scaling(images)) for scaling in likely_scalings(sample.statistics, holds_bytes=True, inner=inner)]
    wanted = [images.float(), images / 255, images / 127.5 - 1]
    assert all(any(torch.allclose(one, two, atol=1e-3) for one in seen) for two in wanted)
    assert not any(torch.allclose(one, inner(images), atol=1e-3) for one in seen)
    assert not any(torch.allclose(one, two, atol=1e-6) for n, one in enumerate(seen) for two in seen[:n])
    wide = likely_scalings(sample.statistics, holds_bytes=False, inner=unchanged(3))
    assert any("10000" in scaling.name for scaling in wide)


class Counting(TorchTeacher):
    """Counts the crops that it is asked about."""

    asked = 0

    def logits(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return super().logits(images)


def test_no_crop_is_asked_about_twice(good: SegmentationModel, sample: Sample) -> None:
    teacher = Counting(good)
    scores = VariantScores(teacher, sample)
    few = scores.of(InputVariant(), 4)
    assert teacher.asked == 4
    whole = scores.of(InputVariant())
    assert teacher.asked == len(sample)
    assert (whole[:4] == few).all()
    assert (scores.of(InputVariant(), 7) == whole[:7]).all()
    assert teacher.asked == len(sample)
    assert (VariantScores(teacher, sample).of(InputVariant()) == whole).all()


@pytest.mark.parametrize("statistics", ["batch", "first"])
def test_batch_statistics_are_used_for_the_moment_only(
    good: SegmentationModel, sample: Sample, statistics: str
) -> None:
    teacher = TorchTeacher(copy.deepcopy(good))
    norms = [layer for layer in teacher.module.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    whole, batch = (
        torch.cat([logits for _, logits in outputs(teacher, sample, variant, range(4))])
        for variant in (InputVariant(), InputVariant(statistics=statistics))
    )
    expected = copy.deepcopy(good)
    for layer in [layer for layer in expected.modules() if isinstance(layer, nn.BatchNorm2d)][
        : None if statistics == "batch" else 1
    ]:
        layer.train()
    with torch.no_grad():
        assert torch.allclose(batch, expected(sample.images[:4]), atol=1e-4)
    assert not torch.allclose(batch, whole, atol=1e-2)
    assert all(torch.equal(before[name], value) for name, value in teacher.module.state_dict().items())
    assert not any(layer.training for layer in norms)
    assert all(layer.track_running_stats for layer in norms)
