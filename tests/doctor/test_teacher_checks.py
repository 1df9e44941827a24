"""Faults planted in a good teacher are named first, with the line that mends them; a healthy one raises no alarm."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segshrink.classes import ClassMap
from segshrink.config import Recipe
from segshrink.data import open_dataset
from segshrink.doctor.sample import Sample, draw_sample
from segshrink.model_description import Normalization
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher, TorchTeacher

from .conftest import COLORS, CROP, fit, look, write_data

Change = Callable[[Tensor], Tensor]
IMAGENET = Normalization.named("imagenet")
MEAN, STD = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
ORDER = [1, 2, 0, 4, 3]
FIXED = 0.8


class Changed(nn.Module):
    """A network whose pixels and answers are changed."""

    def __init__(self, network: nn.Module, before: Change | None = None, after: Change | None = None) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.before, self.after = before, after

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        logits = self.network(pixels if self.before is None else self.before(pixels))
        return logits if self.after is None else self.after(logits)


class Nearest(nn.Module):
    """How near a color is to each class's: a network that needs neither training nor normalization layers."""

    def __init__(self) -> None:
        super().__init__()
        colors = torch.tensor(list(COLORS.values()), dtype=torch.float32)
        self.smooth = nn.AvgPool2d(5, 1, 2, count_include_pad=False)
        self.head = nn.Conv2d(3, len(COLORS), 1)
        self.head.weight.data = (colors * 2 / 1500).reshape(-1, 3, 1, 1)
        self.head.bias.data = -colors.square().sum(1) / 1500

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.smooth(pixels.clamp(-1000, 1000)))


def sample_classes(recipe: Recipe) -> ClassMap:
    return open_dataset(recipe.data).classes


def zoomed(factor: float) -> Change:
    return lambda maps: F.interpolate(maps, scale_factor=factor, mode="bilinear", antialias=factor < 1)


def centered(images: Tensor) -> Tensor:
    """Only whole scenes have the mean that this takes them to have."""
    return images - images.mean(dim=(2, 3), keepdim=True) + torch.tensor([120.0, 95.0, 100.0]).reshape(1, 3, 1, 1)


def half_broken(logits: Tensor) -> Tensor:
    broken = logits.clone()
    broken[:, 0, ::4] = torch.nan
    return broken


# Fault -> what is done to pixels, what to answers, the kind that must come first, and what its fix must hold.
FAULTS: dict[str, tuple[Change | None, Change | None, str, str]] = {
    "wants 0 to 1": (lambda x: x * 255, None, "scaling", "adapter: {mean: 0, std: 255}"),
    "wants -1 to 1": (lambda x: x * 127.5 + 127.5, None, "scaling", "adapter: {mean: 127.5, std: 127.5}"),
    "wants ImageNet's": (lambda x: x * STD + MEAN, None, "scaling", "mean: [123.675, 116.28, 103.53]"),
    "scales twice": (lambda x: (x - MEAN) / STD, None, "scaling", "std: [0.0171248, 0.017507, 0.0174292]"),
    "ImageNet's numbers unscaled": (
        lambda x: ((x - MEAN / 255) / (STD / 255)) * 64 + 127.5, None, "scaling", "adapter: {mean: ",
    ),
    "pixels 255 times too large": (lambda x: x / 255, None, "scaling", "adapter: {mean: 0, std: 0.00392157}"),
    "deviation 255 times too large": (lambda x: (x - 127.5) / 255 + 127.5, None, "scaling", "adapter: {mean: "),
    "wants thousandths": (lambda x: x * 1000, None, "scaling", "adapter: {mean: "),
    "wants 16 bits": (lambda x: x / 257, None, "scaling", "adapter: {mean: "),
    "wants BGR": (lambda x: x.flip(1), None, "order", "adapter: {order: bgr}"),
    "other class order": (
        None, lambda y: y[:, ORDER], "classes",
        "classes: {Ground: Water, Roof: Ground, Water: Roof, Fine: Coarse, Coarse: Fine}",
    ),
    "classes off by one": (
        None, lambda y: y.roll(1, 1), "classes",
        "classes: {Ground: Roof, Roof: Water, Water: Fine, Fine: Coarse, Coarse: Ground}",
    ),
    "two classes exchanged": (None, lambda y: y[:, [0, 2, 1, 3, 4]], "classes", "classes: {Roof: Water, Water: Roof}"),
    "wants larger images": (zoomed(0.5), zoomed(2), "size", "distillation.scales: [2]"),
    "wants smaller images": (zoomed(2), zoomed(0.5), "size", "distillation.scales: [0.5]"),
    "wants whole scenes": (centered, None, "surroundings", "distillation.teacher_cache: true"),
    "shifted": (None, lambda y: y.roll((8, -5), (2, 3)), "shift", "one side only"),
    "NaN": (None, half_broken, "not-finite", "32 bits"),
    "blind": (lambda x: x * 0, None, "constant", "weights"),
    "noisy": (None, lambda y: y + torch.randn_like(y), "random", ".eval()"),
    "dropout on its answers": (None, lambda y: F.dropout(y, 0.5), "random", ".eval()"),
    "mixed over the batch": (None, lambda y: 0.3 * y + 0.7 * y.mean(0, keepdim=True), "batch", ".eval()"),
    "wants 0 to 1 and BGR": (lambda x: x.flip(1) * 255, None, "scaling and order", "{order: bgr, mean: 0, std: 255}"),
    "ImageNet's numbers in BGR order": (
        lambda x: (x * STD + MEAN).flip(1), None, "scaling and order", "{order: bgr, mean: [123.675",
    ),
    "wants 0 to 1, other class order": (
        lambda x: x * 255, lambda y: y[:, ORDER], "scaling and classes", "std: 255}, classes: {Ground: Water",
    ),
    "wants BGR and larger images": (
        lambda x: zoomed(0.5)(x.flip(1)), zoomed(2), "order and size", "{order: bgr}}]\ndistillation.scales: [2]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_first_with_its_fix(
    good: SegmentationModel, sample: Sample, recipe: Recipe, fault: str
) -> None:
    before, after, kind, fix = FAULTS[fault]
    classes = good.description.classes
    found = look(TorchTeacher(Changed(good, before, after), classes), sample, recipe)
    assert found[0].kind == kind, found[0]
    assert found[0].severity == "fault"
    assert fix in found[0].fix
    assert [other.kind for other in found[1:] if other.severity != "fine"] == []
    if "fixed_mean_iou" in found[0].numbers:
        assert found[0].numbers["fixed_mean_iou"] > FIXED
        assert found[0].numbers["gain"] > 0.1


@pytest.mark.parametrize("change", [
    lambda x: x * 255, lambda x: x / 255, lambda x: x * 1000, lambda x: (x - 127.5) / 255 + 127.5,
    lambda x: x * STD + MEAN, lambda x: x * 127.5 + 127.5, lambda x: (x - 127.5) / 127.5,
])  # fmt: skip
def test_a_scaling_is_found_without_normalization_layers(sample: Sample, recipe: Recipe, change: Change) -> None:
    """A color's nearness to each class's color, as a network of three layers that nothing normalizes."""
    found = look(TorchTeacher(Changed(Nearest(), change), sample_classes(recipe)), sample, recipe)
    assert (found[0].kind, found[0].severity) == ("scaling", "fault"), found[0]
    assert found[0].numbers["fixed_mean_iou"] > found[0].numbers["mean_iou"] + 0.2


@pytest.mark.parametrize("change", [
    lambda x: 255 * (x / 255).clamp(0, 1) ** 3,  # no mean and deviation undo it
    lambda x: x * torch.tensor([0.02, 30.0, 1.0]).reshape(1, 3, 1, 1),
])  # fmt: skip
def test_scaling_is_suspected_where_batch_statistics_of_the_first_layer_help(
    good: SegmentationModel, sample: Sample, recipe: Recipe, change: Change
) -> None:
    found = look(TorchTeacher(Changed(good, change), good.description.classes), sample, recipe)
    assert "scaling" in found[0].kind, found[0]
    assert "update_bn" not in found[0].fix


def test_what_leaves_a_teacher_poor_is_its_likely_cause(
    good: SegmentationModel, sample: Sample, recipe: Recipe
) -> None:
    def mostly_blind(logits: Tensor) -> Tensor:
        logits = logits.clone()
        logits[..., logits.shape[3] // 4 :] = torch.tensor([1.0, 0, 0, 0, 0]).reshape(1, 5, 1, 1)
        return logits

    teacher = TorchTeacher(Changed(good, lambda x: x * 255, mostly_blind), good.description.classes)
    found = look(teacher, sample, recipe)
    numbers = found[0].numbers
    assert (found[0].kind, found[0].severity) == ("scaling", "fault"), found[0]
    assert "likely cause" in found[0].message
    assert "adapter: {mean: 0, std: 255}" in found[0].fix
    assert numbers["mean_iou"] + 0.05 < numbers["fixed_mean_iou"] < 0.5


def test_running_averages_that_do_not_fit(good: SegmentationModel, sample: Sample, recipe: Recipe) -> None:
    broken = copy.deepcopy(good)
    for layer in broken.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    before = {name: value.clone() for name, value in broken.state_dict().items()}
    found = look(TorchTeacher(broken), sample, recipe)
    assert (found[0].kind, found[0].severity) == ("statistics", "fault")
    assert "update_bn" in found[0].fix
    assert found[0].numbers["fixed_mean_iou"] > FIXED
    assert all(torch.equal(before[name], value) for name, value in broken.state_dict().items())


class Stuck(Changed):
    """Its batch normalization can't be switched to evaluation."""

    def train(self, mode: bool = True) -> Stuck:
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.training = True
        return self


def test_a_network_that_stays_in_train_mode_is_named_and_left_as_it_was(
    good: SegmentationModel, sample: Sample, recipe: Recipe
) -> None:
    stuck = Stuck(good)
    before = {name: value.clone() for name, value in stuck.state_dict().items()}
    found = look(TorchTeacher(stuck, good.description.classes), sample, recipe)
    assert (found[0].kind, found[0].severity) == ("batch", "fault")
    assert ".eval()" in found[0].fix
    assert all(torch.equal(before[name], value) for name, value in stuck.state_dict().items())


class Answering(Teacher):
    """A teacher of the user's own that answers with whatever is done to logits."""

    def __init__(self, model: SegmentationModel, after: Change) -> None:
        super().__init__(model.description.classes)
        self._model, self._after = model, after

    @property
    def identity(self) -> str:
        return "answering"

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        return self._after(self._model(images))


def test_probabilities_taken_for_logits_are_a_fault_though_the_score_is_right(
    good: SegmentationModel, sample: Sample, recipe: Recipe
) -> None:
    found = look(Answering(good, lambda y: y.softmax(1)), sample, recipe)
    assert (found[0].kind, found[0].severity) == ("probabilities", "fault")
    assert found[0].fix == "distillation.teachers: [{source: runs/teacher, adapter: {output: probabilities}}]"
    assert found[0].numbers["highest_probability"] < 0.41  # e / (e + 4) at most, of five classes
    each = look(Answering(good, lambda y: y.sigmoid()), sample, recipe)
    assert (each[0].kind, each[0].severity) == ("probabilities", "fault")
    assert each[0].fix == found[0].fix
    fine = look(Answering(good, lambda y: y.log_softmax(1)), sample, recipe)
    assert [finding.severity for finding in fine] == ["fine"]


def test_an_untrained_teacher_is_weak_and_no_cause_is_made_up(
    student: Callable[[], SegmentationModel], sample: Sample, recipe: Recipe
) -> None:
    found = look(TorchTeacher(student()), sample, recipe)
    assert [(finding.kind, finding.severity) for finding in found] == [("weak", "fault")]


@pytest.mark.parametrize(("factor", "kind", "line"), [
    (60.0, "certain", "distillation.temperature: 12"), (0.02, "uncertain", "distillation.temperature: 0.5"),
])  # fmt: skip
def test_targets_that_say_no_more_than_labels_or_nothing(
    good: SegmentationModel, sample: Sample, recipe: Recipe, factor: float, kind: str, line: str
) -> None:
    teacher = TorchTeacher(Changed(good, after=lambda y: y * factor), good.description.classes)
    found = look(teacher, sample, recipe)
    assert [(finding.kind, finding.severity) for finding in found] == [(kind, "warning"), ("score", "fine")]
    assert found[0].fix == line


@pytest.mark.parametrize("after", [None, lambda y: y * 0.25, lambda y: y * 2], ids=["as trained", "unsure", "sure"])
def test_no_false_alarm_about_the_good_teacher(
    good: SegmentationModel, sample: Sample, recipe: Recipe, after: Change | None
) -> None:
    found = look(TorchTeacher(Changed(good, after=after), good.description.classes), sample, recipe)
    assert [finding.severity for finding in found] == ["fine"], found
    assert found[0].numbers["mean_iou"] > FIXED


@pytest.mark.parametrize(
    ("seed", "classes", "absent", "steps"),
    [(1, 5, None, 60), (2, 2, None, 30), (3, 5, 3, 90), (4, 3, 1, 30)],
    ids=["another seed", "two classes", "an absent class", "an absent class of three"],
)
def test_no_false_alarm_about_healthy_variants(
    tmp_path: Path, seed: int, classes: int, absent: int | None, steps: int
) -> None:
    recipe = write_data(tmp_path, classes=classes, absent=absent, seed=seed)
    teacher = TorchTeacher(fit(recipe, seed=seed, steps=steps))
    found = look(teacher, draw_sample(open_dataset(recipe.data), images=12, size=CROP, seed=seed), recipe)
    assert [finding.severity for finding in found] == ["fine"], found
