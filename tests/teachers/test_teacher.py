from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.config import TeacherSource
from segshrink.errors import ConfigError, ModelError
from segshrink.models import build_model
from segshrink.prediction.probabilities import are_sigmoids
from segshrink.teachers import Augmented, Ensemble, TorchTeacher, open_teacher, probabilities
from segshrink.teachers.torch_teacher import for_crops
from segshrink.working_size import Resize

CLASSES = ClassMap.build([("Land", "#804000", None), ("Water", "#0000FF", None), ("Road", "#808080", None)])


def reordered(*names: str) -> ClassMap:
    colors = {"Land": "#804000", "Water": "#0000FF", "Road": "#808080", "Roof": "#FF0000"}
    return ClassMap.build([(name, colors[name], None) for name in names])


class Fixed(nn.Module):
    """Answers every image with the same (1, C, H, W) map."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        self.norm(images.float())
        return self.answer.expand(len(images), -1, -1, -1)


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_stays_frozen_though_its_model_is_switched_to_training(images: Tensor) -> None:
    teacher = TorchTeacher(build_model("unet", CLASSES, options={"width": 4, "depth": 2}))
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    teacher.module.train()
    first, second = teacher.logits(images), teacher.logits(images)
    assert not first.requires_grad
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in teacher.module.state_dict().items())


def test_classes_are_matched_by_name(tmp_path: Path, images: Tensor) -> None:
    build_model("unet", reordered("Road", "Land", "Water"), options={"width": 4, "depth": 2}).save(tmp_path / "model")
    own = open_teacher(tmp_path / "model", reordered("Road", "Land", "Water"))
    mapped = open_teacher(tmp_path / "model", CLASSES)
    assert own.known == mapped.known == (0, 1, 2)
    assert torch.equal(mapped.logits(images), own.logits(images)[:, [1, 2, 0]])


def test_classes_it_does_not_know_are_excluded(tmp_path: Path, images: Tensor) -> None:
    build_model("unet", CLASSES, options={"width": 4, "depth": 2}).save(tmp_path / "model")
    teacher = open_teacher(tmp_path / "model", reordered("Land", "Roof", "Water"))
    assert teacher.known == (0, 2)
    shares = teacher.logits(images).softmax(1)
    assert (shares[:, 1] == 0).all()
    assert torch.allclose(shares.sum(1), torch.ones(1))


def test_several_of_its_classes_stand_for_one(tmp_path: Path, images: Tensor) -> None:
    build_model("unet", CLASSES, options={"width": 4, "depth": 2}).save(tmp_path / "model")
    dry = ClassMap.build([("Wet", "#0000FF", None), ("Dry", "#804000", None)])
    source = TeacherSource(source=str(tmp_path / "model"), classes={"Wet": "water", "Dry": ["Land", "Road"]})
    mapped, own = open_teacher(source, dry).logits(images), open_teacher(tmp_path / "model", CLASSES).logits(images)
    assert torch.allclose(mapped.softmax(1)[:, 1], own.softmax(1)[:, [0, 2]].sum(1), atol=1e-6)


def test_classes_or_bands_that_never_match_are_refused(tmp_path: Path) -> None:
    build_model("unet", CLASSES, options={"width": 4, "depth": 2}).save(tmp_path / "model")
    with pytest.raises(ModelError, match="share no name"):
        open_teacher(tmp_path / "model", reordered("Roof"))
    with pytest.raises(ModelError, match="bands"):
        open_teacher(tmp_path / "model", CLASSES, bands=4)
    source = TeacherSource(source=str(tmp_path / "model"), classes={"Land": "Watre"})
    with pytest.raises(ModelError, match=r"no class 'Watre'.*Water"):
        open_teacher(source, CLASSES)


def test_probabilities_are_turned_into_logits_of_the_same_distribution(images: Tensor) -> None:
    logits = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    shares = logits.softmax(1)
    teacher = TorchTeacher(Fixed(shares), CLASSES)
    assert torch.allclose(teacher.logits(images).softmax(1), shares.expand(2, -1, -1, -1), atol=1e-6)
    assert teacher.returns_probabilities
    untouched = TorchTeacher(Fixed(logits), CLASSES)
    assert torch.equal(untouched.logits(images), logits.expand(2, -1, -1, -1))


def test_sigmoids_are_brought_to_a_sum_of_one_and_told(images: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    sigmoids = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).mul(4).sigmoid()
    teacher = TorchTeacher(Fixed(sigmoids), CLASSES)
    expected = (sigmoids / sigmoids.sum(1, keepdim=True)).expand(2, -1, -1, -1)
    assert torch.allclose(teacher.logits(images).softmax(1), expected, atol=1e-6)
    assert teacher.returns_probabilities
    (record,) = caplog.records
    assert "sigmoid" in record.getMessage()
    assert "output: logits" in record.getMessage()
    told = TorchTeacher(Fixed(sigmoids), CLASSES, output="logits")
    assert torch.equal(told.logits(images), sigmoids.expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("channels", "sigmoids"),
    [((0.2, 0.9), True), ((0.2, 0.8), False), ((1.0, 1.0), True), ((0.2, 1.1), False), ((-0.1, 0.5), False)],
)
def test_sigmoids_are_told_from_probabilities_and_logits(channels: tuple[float, ...], sigmoids: bool) -> None:
    assert are_sigmoids(torch.tensor(channels).view(1, -1, 1, 1).expand(1, -1, 4, 4)) is sigmoids


def test_probabilities_that_turn_out_to_be_logits_are_refused(images: Tensor) -> None:
    module = Fixed(torch.full((1, 3, 32, 32), 1 / 3))
    teacher = TorchTeacher(module, CLASSES)
    teacher.logits(images)
    module.answer = module.answer * 9
    with pytest.raises(ModelError, match=r"3 to 3.*output: logits"):
        teacher.logits(images)


class Own(nn.Module):
    """A convolution with preprocessing that no state dict shows."""

    def __init__(self, mean: float = 0.0, scale: float = 1.0, bands: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(bands, 3, 3, padding=1)
        self.mean, self.scale = mean, scale

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution((images - self.mean) / self.scale)


class Edited(Own):
    """The same with other code."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).flip(3)


Edited.__qualname__ = Own.__qualname__


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_a_plain_module_takes_bytes(bands: int) -> None:
    images = torch.randint(0, 256, (2, bands, 16, 16), dtype=torch.uint8)
    teacher = TorchTeacher(Own(bands=bands), CLASSES)
    assert torch.equal(teacher.logits(images), teacher.logits(images.float()))


@pytest.mark.parametrize(
    "form",
    [
        lambda scores: {"aux": -scores, "out": scores},
        lambda scores: {"logits": scores, "loss": None},
        lambda scores: (scores, -scores),
        lambda scores: [scores, -scores],
        lambda scores: nn.functional.avg_pool2d(scores, 4),
    ],
    ids=["torchvision", "transformers", "tuple", "deep supervision", "quarter size"],
)
def test_scores_are_found_in_what_networks_of_libraries_answer(form: Callable[[Tensor], Any], images: Tensor) -> None:
    class Library(Own):
        def forward(self, images: Tensor) -> Any:
            return form(super().forward(images))

    flat = images.float().mean(dim=(2, 3), keepdim=True).expand_as(images)
    inner = np.s_[:, :, 8:-8, 8:-8]  # the convolution sees zeros around
    expected = TorchTeacher(Own(), CLASSES).logits(flat)
    assert torch.allclose(TorchTeacher(Library(), CLASSES).logits(flat)[inner], expected[inner], rtol=1e-4)


@pytest.mark.parametrize(
    "other", [Own(mean=1.0), Own(mean=128.0), Own(scale=1.01), Edited(), "logits", "probabilities"]
)
def test_identity_changes_with_whatever_changes_answers(other: nn.Module | str) -> None:
    plain = TorchTeacher(Own(), CLASSES)
    assert plain.identity == plain.identity == TorchTeacher(Own(), CLASSES).identity
    changed = TorchTeacher(Own(), CLASSES, output=other) if isinstance(other, str) else TorchTeacher(other, CLASSES)
    assert plain.identity != changed.identity
    assert Augmented(plain).identity != Augmented(changed).identity
    assert Ensemble([plain], [1]).identity != Ensemble([changed], [1]).identity


def test_asking_for_the_identity_leaves_no_trace(images: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    class Draws(Own):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + torch.randn(1)

    module = nn.Sequential(Draws(), nn.BatchNorm2d(3), nn.Softmax(1))
    teacher = TorchTeacher(module, CLASSES)
    for layer in module:
        layer.eval = lambda layer=layer: layer  # type: ignore[method-assign]
    module[1].train()
    torch.manual_seed(7)
    before = [value.clone() for value in module.state_dict().values()]
    assert teacher.identity == teacher.identity
    assert torch.equal(torch.randn(1), torch.randn(1, generator=torch.Generator().manual_seed(7)))
    assert all(torch.equal(one, two) for one, two in zip(before, module.state_dict().values(), strict=True))
    assert teacher.returns_probabilities is None
    assert caplog.records == []


def test_identity_survives_other_numbers_of_threads_and_networks_that_take_no_noise() -> None:
    class Picky(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise ValueError("only on Sundays")

    teacher = TorchTeacher(build_model("unet", CLASSES, options={"width": 4, "depth": 2}))
    threads = torch.get_num_threads()
    before = teacher.identity
    torch.set_num_threads(2)
    try:
        assert teacher.identity == before
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert TorchTeacher(Picky(), CLASSES).identity


def test_labels_become_logits_where_they_are() -> None:
    # A tensor on "meta" can't be mixed with one on the CPU, as little as one on a GPU.
    labels = torch.zeros(1, 4, 4, dtype=torch.long, device="meta")
    assert probabilities._peaked(labels, 3, 2.0).device.type == "meta"
    one_hot = probabilities.one_hot_logits(torch.tensor([[[0, 2]]]), 3, 0.8, "net").softmax(1)
    assert torch.allclose(one_hot[0, :, 0].T, torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))


def test_asked_about_crops_at_its_working_size_it_leaves_the_images_alone(images: Tensor) -> None:
    network = build_model("unet", CLASSES, options={"width": 4, "depth": 2}).eval()
    halved = TorchTeacher(network.with_resize(0.5))
    assert torch.equal(for_crops(halved, 0.5).logits(images), TorchTeacher(network).logits(images))
    assert for_crops(halved, None) is halved, "crops of images as they are"
    plain = TorchTeacher(network)
    assert for_crops(plain, 0.5) is plain
    both = for_crops(Ensemble([Augmented(halved, flips=True), plain], [1, 1]), 0.5)
    expected = Ensemble([Augmented(plain, flips=True), plain], [1, 1]).logits(images)
    torch.testing.assert_close(both.logits(images), expected)
    assert halved.resize == 0.5


@pytest.mark.parametrize(("own", "crops"), [(0.5, 0.25), ({"longest": 64}, None), ((64, 64), 0.5)])
def test_a_teacher_whose_working_size_crops_dont_tell_wants_a_cache(own: Resize, crops: Resize | None) -> None:
    teacher = TorchTeacher(build_model("unet", CLASSES, options={"width": 4, "depth": 2}).with_resize(own))
    with pytest.raises(ConfigError, match="teacher_cache=true"):
        for_crops(teacher, crops)


def test_a_whole_scene_is_seen_at_the_working_size() -> None:
    network = build_model("unet", CLASSES, options={"width": 4, "depth": 2}).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (700, 90, 3), dtype=np.uint8)
    for resize in (0.25, {"longest": 64}):
        model = network.with_resize(resize)
        found = TorchTeacher(model).scene_logits(pixels, "scene")
        with torch.no_grad():
            expected = model(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=0.05, rtol=0.01)
