"""The Distiller with networks, batches and optimizers of other libraries."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import lightning
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor, nn
from torch.nn import functional as F

from segshrink.config import Term
from segshrink.errors import DataError, ModelError
from segshrink.losses import build_terms
from segshrink.models import SegmentationModel
from segshrink.teachers import TorchTeacher
from segshrink.training import Distiller, SegmentationTask
from segshrink.training.task import named_parts

SIDE, CLASSES = 64, 3


class Several(nn.Module):
    """Gives logits of full, half and quarter size, as deep supervision does."""

    def __init__(self, kind: Callable[[list[Tensor]], Any]) -> None:
        super().__init__()
        self.kind = kind
        self.heads = nn.ModuleList([nn.Conv2d(3, CLASSES, 3, padding=1) for _ in range(3)])

    def forward(self, images: Tensor) -> Any:
        return self.kind([head(images[..., :: 2**level, :: 2**level]) for level, head in enumerate(self.heads)])


def unet() -> nn.Module:
    return smp.Unet("mobilenet_v2", encoder_weights=None, classes=CLASSES, encoder_depth=3, decoder_channels=(16, 8, 8))


def deeplab() -> nn.Module:
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    return deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True)


def segformer() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2], "depths": [1] * 4}
    config = transformers.SegformerConfig(num_labels=CLASSES, decoder_hidden_size=8, **sizes)
    return transformers.SegformerForSemanticSegmentation(config)


# A network → its main output.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Tensor]]] = {
    "SMP's Unet": (unet, lambda output: output),
    "torchvision's DeepLab, a dictionary with an auxiliary output": (deeplab, lambda output: output["out"]),
    "SegFormer, a quarter of the size": (segformer, lambda output: output.logits),
    "tuple": (lambda: Several(tuple), lambda output: output[0]),
    "list of deep supervision": (lambda: Several(list), lambda output: output[0]),
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Normalized floats."""
    return torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def masks() -> Tensor:
    masks = torch.randint(0, CLASSES, (4, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    masks[:, :8] = 255
    return masks


def loader(batches: Iterable[Any]) -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def fit(module: SegmentationTask, batches: list[Any], *, epochs: int = 1) -> dict[str, Tensor]:
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(many workers|LeafSpec).*")
        trainer.fit(module, loader(batches), loader(batches))
    return trainer.callback_metrics


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pixels", ["normalized floats", "uint8"])
def test_any_network_learns_from_any_network(name: str, pixels: str, images: Tensor, masks: Tensor) -> None:
    build, main_output = NETWORKS[name]
    torch.manual_seed(0)
    student, teacher = build(), build()
    before = [{key: value.clone() for key, value in net.state_dict().items()} for net in (student, teacher)]
    batch = (images if pixels != "uint8" else (40 * images + 128).clamp(0, 255).to(torch.uint8), masks)
    metrics = fit(Distiller(student, teacher), [batch, batch])
    assert {"train/loss", "train/cross_entropy", "train/pixel_kl", "val/pixel_kl"} <= metrics.keys()
    assert any(not torch.equal(value, before[0][key]) for key, value in student.state_dict().items())
    assert all(torch.equal(value, before[1][key]) for key, value in teacher.state_dict().items())
    with torch.no_grad():
        logits = main_output(student.eval()(batch[0].float()))
        classes = F.interpolate(logits, size=(SIDE, SIDE), mode="bilinear", align_corners=False).argmax(1)
    known = masks != 255
    expected = jaccard_score(masks[known].numpy(), classes[known].numpy(), average="macro")
    assert float(metrics["val/mean_iou"]) == pytest.approx(expected, abs=1e-4)


def test_a_student_becomes_like_its_teacher(images: Tensor, masks: Tensor) -> None:
    torch.manual_seed(0)
    teacher, student = nn.Conv2d(3, CLASSES, 1), nn.Conv2d(3, CLASSES, 1)
    module = Distiller(student, teacher, alpha=0.0, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    batch = named_parts((images, masks))
    first = module.term_values(batch)["pixel_kl"].item()
    fit(module, [(images, masks)] * 10, epochs=3)
    assert module.term_values(batch)["pixel_kl"].item() < first / 10


@pytest.mark.parametrize("wrapped", ["student", "teacher"])
def test_wrapped_and_bare_networks_learn_from_each_other(wrapped: str, images: Tensor, masks: Tensor) -> None:
    torch.manual_seed(0)
    student: nn.Module = unet()
    teacher: nn.Module = unet()
    model = SegmentationModel.wrap(student if wrapped == "student" else teacher, classes=["a", "b", "c"])
    student, teacher = (model, teacher) if wrapped == "student" else (student, model)
    raw = (40 * images + 128).clamp(0, 255).to(torch.uint8)
    assert fit(Distiller(student, teacher), [(raw, masks)])["val/mean_iou"] >= 0


BATCHES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "pair": lambda images, masks: (images, masks),
    "list of three": lambda images, masks: [images, masks, ["names", "of", "four", "images"]],
    "image and mask": lambda images, masks: {"image": images, "mask": masks},
    "image and target": lambda images, masks: {"image": images, "target": masks},
    "transformers": lambda images, masks: {"pixel_values": images, "labels": masks},
    "Albumentations": lambda images, masks: {
        "image": images,
        "mask": masks.to(torch.uint8),
        "bboxes": [torch.zeros(4, 4)],
        "keypoints": [],
        "sample": ["a", "b", "c", "d"],
    },
    "masks with a channel": lambda images, masks: {"image": images, "mask": masks[:, None].float()},
    "channels last": lambda images, masks: {"image": images, "mask": masks[..., None]},
    "ignored as torch does": lambda images, masks: (images, masks.where(masks != 255, -100)),
}


@pytest.mark.parametrize("form", BATCHES)
def test_any_batch_teaches_the_same(form: str, images: Tensor, masks: Tensor) -> None:
    torch.manual_seed(0)
    student, teacher = nn.Conv2d(3, CLASSES, 1), nn.Conv2d(3, CLASSES, 3, padding=1)
    expected = fit(Distiller(copy.deepcopy(student), teacher), [(images, masks)] * 2)
    metrics = fit(Distiller(student, teacher), [BATCHES[form](images, masks)] * 2)
    assert {key: float(value) for key, value in metrics.items()} == pytest.approx(
        {key: float(value) for key, value in expected.items()}
    )


@pytest.mark.parametrize(
    ("batch", "words"),
    [({"pixels": 1, "mask": 2}, r"no images.*pixels, mask"), ({"image": 1}, "no targets.*image"), ((1,), "no targets")],
)
def test_batches_without_images_or_masks_are_refused(batch: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        named_parts(batch)


class OwnOptimizer(Distiller):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.model.parameters(), lr=0.25)


@pytest.mark.parametrize("way", ["argument", "with a schedule", "overridden"])
def test_any_optimizer(way: str, images: Tensor, masks: Tensor) -> None:
    student, teacher = nn.Conv2d(3, CLASSES, 1), nn.Conv2d(3, CLASSES, 1)
    given: list[nn.Parameter] = []

    def scheduled(parameters: list[nn.Parameter]) -> Any:
        given.extend(parameters)
        optimizer = torch.optim.SGD(parameters, lr=0.5)
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def plain(parameters: list[nn.Parameter]) -> Any:
        given.extend(parameters)
        return torch.optim.SGD(parameters, lr=0.25)

    kinds = {
        "argument": lambda: Distiller(student, teacher, optimizer=plain),
        "with a schedule": lambda: Distiller(student, teacher, optimizer=scheduled),
        "overridden": lambda: OwnOptimizer(student, teacher),
    }
    module = kinds[way]()
    fit(module, [(images, masks)])
    optimizer: Any = module.optimizers()
    assert isinstance(optimizer.optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert all(parameter is own for parameter, own in zip(given, student.parameters(), strict=way != "overridden"))


def test_terms_on_features_of_foreign_networks(images: Tensor, masks: Tensor) -> None:
    torch.manual_seed(0)
    terms = build_terms([Term(name="cross_entropy"), Term(name="hint", student="encoder", teacher="encoder")])
    module = Distiller(unet(), deeplab(), terms)
    before = copy.deepcopy(module.adapters.state_dict())
    metrics = fit(module, [(images, masks)] * 2)
    assert metrics["train/hint"] > 0
    assert any(not torch.equal(value, before[key]) for key, value in module.adapters.state_dict().items())


def test_one_channel_stands_for_two_classes(images: Tensor) -> None:
    torch.manual_seed(0)
    student, teacher = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)
    module = Distiller(student, teacher)
    logits = module(images)
    assert torch.equal(logits[:, 1:] - logits[:, :1], student(images))
    assert len(module.teacher.classes) == 2
    assert fit(module, [(images, (images[:, 0] > 0).float())])["train/cross_entropy"] > 0


def test_networks_of_different_classes_are_refused(images: Tensor, masks: Tensor) -> None:
    module = Distiller(nn.Conv2d(3, CLASSES, 1), nn.Conv2d(3, 5, 1))
    with pytest.raises(ModelError, match="5 classes but the student 3"):
        module.term_values(named_parts((images, masks)))


@pytest.mark.parametrize(
    ("student", "teacher", "uint8", "names"),
    [
        ("bare", "bare", False, []),
        ("bare", "bare", True, ["the student", "the teacher"]),
        ("wrapped", "wrapped", True, []),
        ("wrapped", "bare", False, ["the student"]),
        ("bare", "wrapped", False, ["the teacher"]),
    ],
)
def test_normalization_twice_or_never_is_said(
    student: str, teacher: str, uint8: bool, names: list[str], images: Tensor, masks: Tensor,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def network(kind: str) -> nn.Module:
        bare = nn.Conv2d(3, CLASSES, 1)
        return bare if kind == "bare" else SegmentationModel.wrap(bare, classes=["a", "b", "c"])

    pixels = (40 * images + 128).clamp(0, 255).to(torch.uint8) if uint8 else images
    with caplog.at_level(logging.WARNING, "segshrink"):
        fit(Distiller(network(student), network(teacher)), [(pixels, masks)] * 2)
    notices = [record.getMessage() for record in caplog.records if "normaliz" in record.getMessage()]
    assert [notice[: len(name)] for notice, name in zip(notices, names, strict=True)] == names


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_teaches(name: str, images: Tensor) -> None:
    build, main_output = NETWORKS[name]
    torch.manual_seed(0)
    network = build()
    teacher = TorchTeacher(network)
    assert teacher.classes.names == ("class 0", "class 1", "class 2")
    with torch.no_grad():
        output = main_output(network.eval()(images))
        expected = F.interpolate(output, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    logits = teacher.logits(images)
    assert logits.shape == (4, CLASSES, SIDE, SIDE)
    torch.testing.assert_close(logits, expected)
    scene = teacher.scene_logits(np.zeros((70, 90, 3), np.uint8), "scene")
    assert scene.shape == (CLASSES, 70, 90)


def test_a_teacher_that_takes_no_small_image_must_name_its_classes() -> None:
    class Picky(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise ValueError("images of 1000 pixels only")

    with pytest.raises(ModelError, match=r"TorchTeacher\(network, classes\)"):
        TorchTeacher(Picky())
