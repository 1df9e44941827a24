"""The Distiller: what its terms compare, its taps and adapters, and which teachers serve which terms."""

from __future__ import annotations

import contextlib
import copy
import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segshrink.classes import ClassMap
from segshrink.config import Adapter, Distillation, Term, Training
from segshrink.errors import ConfigError, ModelError
from segshrink.evaluation import Confusion
from segshrink.losses import PRESETS, build_terms
from segshrink.models import SegmentationModel, Taps, build_model
from segshrink.teachers import Teacher, TorchTeacher
from segshrink.teachers.torch_teacher import AdaptedNetwork
from segshrink.training import Distiller
from segshrink.training.terms import student_terms

CLASSES = ClassMap.build([(name, None, None) for name in ("Ground", "Roof", "Water")])
FEATURES = [Term(name="cross_entropy"), Term(name="hint"), Term(name="masked_generation", student="stage:1")]


class Answers(Teacher):
    """A black box with fixed logits for everything."""

    identity = "answers"

    def __init__(self, known: tuple[int, ...] | None = None, *, module: nn.Module | None = None) -> None:
        super().__init__(CLASSES, known=known, name="answers.onnx")
        self.module = module

    def logits(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        logits = torch.randn(len(images), len(CLASSES), *images.shape[2:], generator=generator)
        unknown = [index for index in range(len(CLASSES)) if index not in self.known]
        logits[:, unknown] = -torch.inf
        return logits


def network(width: int = 4, depth: int = 2, seed: int = 0) -> SegmentationModel:
    torch.manual_seed(seed)
    return build_model("unet", CLASSES, options={"width": width, "depth": depth})


def distiller(terms: Sequence[Term] = FEATURES, *, teacher: Any = None, seed: int = 0, **settings: Any) -> Distiller:
    teacher = network(8, 3, seed=1) if teacher is None else teacher
    return Distiller(network(), teacher, build_terms(terms), training=Training(**settings), seed=seed)


@pytest.fixture
def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(0, 3, (4, 32, 32), generator=generator).to(torch.uint8)
    target[0] = 255
    return {
        "image": torch.randint(0, 256, (4, 3, 32, 32), generator=generator).to(torch.uint8),
        "target": target,
        "inside": torch.ones(4, 32, 32, dtype=torch.bool),
        "sample": torch.zeros(4, dtype=torch.long),
    }


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def fit(module: Distiller, batches: list[Any], **settings: Any) -> lightning.Trainer:
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(**options, enable_model_summary=False, accelerator="cpu", **settings)
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(many workers|no `val_dataloader`|LeafSpec).*")
        trainer.fit(module, loader)
    return trainer


def test_feature_terms_compare_adapted_student_with_teacher(batch: dict[str, Any]) -> None:
    module = distiller([Term(name="hint", student="stage:1", teacher="stage:2"), Term(name="pixel_kl")])
    teacher = module.teacher.module
    with Taps(module.model, ["stage:1"]) as own, Taps(teacher, ["stage:2"]) as other, torch.no_grad():
        student_logits, teacher_logits = module.model(batch["image"]), module.teacher.logits(batch["image"])
        adapted = module.adapters["hint@stage:1"](own.features["stage:1"])
        features = F.interpolate(other.features["stage:2"], adapted.shape[2:], mode="bilinear", align_corners=False)
        expected = (adapted - features).square().mean()
        divergence = teacher_logits.softmax(1) * (teacher_logits.log_softmax(1) - student_logits.log_softmax(1))
    values = module.term_values(batch)
    assert list(values) == ["hint@stage:1", "pixel_kl"]
    assert values["hint@stage:1"].item() == pytest.approx(expected.item(), rel=1e-5)
    told = teacher_logits.amax(1) != teacher_logits.amin(1)  # an untrained network's logits may all be 0
    assert values["pixel_kl"].item() == pytest.approx(divergence.sum(1)[told].mean().item(), rel=1e-4)
    assert hooks(module.model) == hooks(teacher) == 0  # outside of a fit the taps are gone after the call


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_teaches_from_another_architecture(batch: dict[str, Any], preset: str) -> None:
    torch.manual_seed(0)
    teacher = TorchTeacher(build_model("mobile", CLASSES, options={"width": 0.25}))
    terms = student_terms(Distillation(preset=preset), [Term(name="cross_entropy")], teacher)
    module = Distiller(network(), teacher, terms)
    values = module.term_values(batch)
    for label, value in values.items():
        (gradient,) = torch.autograd.grad(value, module.model.network.encoder[0][0].weight, retain_graph=True)
        assert gradient.any(), label
        assert gradient.isfinite().all(), label


def test_the_classes_a_teacher_does_not_know_are_left_to_the_labels(batch: dict[str, Any]) -> None:
    soft = [Term(name=name) for name in ("pixel_kl", "channel_kl", "dist", "soft_jaccard", "decoupled_kl")]
    module = distiller([Term(name="cross_entropy"), *soft], teacher=Answers(known=(0, 2)))
    values = module.term_values(batch)
    labels = values.pop("cross_entropy")
    head = module.model.network.head
    for value in values.values():
        assert value > 0
        (by_weight,) = torch.autograd.grad(value, head.weight, retain_graph=True)
        assert not by_weight[1].any()
        assert by_weight[0].any()
    assert torch.autograd.grad(labels, head.weight)[0][1].any()


def test_adapters_learn_with_the_student_and_taps_go_with_the_fit(batch: dict[str, Any]) -> None:
    module = distiller(learning_rate=0.01, epochs=1)
    assert set(module.adapters) == {"hint", "masked_generation@stage:1"}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    teacher = {name: value.clone() for name, value in module.teacher.module.state_dict().items()}
    fit(module, [batch] * 3)
    moved = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    assert {name for name in before if name.startswith("adapters.")} <= set(moved)
    assert any(name.startswith("model.") for name in moved)
    assert all(torch.equal(teacher[name], value) for name, value in module.teacher.module.state_dict().items())
    assert hooks(module.model) == hooks(module.teacher.module) == 0
    assert not module.teacher.module.training


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_taps_are_removed_after_an_interrupt(batch: dict[str, Any], error: type[BaseException]) -> None:
    module = distiller()
    seen = []

    class Stop(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            seen.append((hooks(module.model), hooks(module.teacher.module)))
            raise error

    with pytest.raises((SystemExit, RuntimeError)):
        fit(module, [batch] * 3, callbacks=[Stop()])
    assert min(seen[0]) > 0
    assert hooks(module.model) == hooks(module.teacher.module) == 0


def test_a_copy_made_during_a_fit_is_whole_and_untapped(batch: dict[str, Any]) -> None:
    module = distiller()
    module.open_taps()
    copied = copy.deepcopy(module)
    assert copied.teacher is module.teacher
    values = [each.term_values(batch) for each in (module, copied)]
    assert values[0]["hint"].item() == values[1]["hint"].item()
    sum(values[1].values()).backward()
    assert copied.adapters["hint"].weight.grad.any()
    assert module.adapters["hint"].weight.grad is None
    module.close_taps()
    assert hooks(module.model) == 0
    assert pickle.loads(pickle.dumps(module.adapters)).keys() == module.adapters.keys()  # noqa: S301


def test_features_hold_no_graph_between_steps(batch: dict[str, Any]) -> None:
    module = distiller()
    module.open_taps()
    module.term_values(batch)
    assert not module._taps._student.features
    assert not module._taps._teacher.features
    module.close_taps()


def test_first_weights_of_adapters_derive_from_seed_and_name() -> None:
    state = torch.random.get_rng_state()
    same, again, other = (distiller(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(same.adapters["hint"].weight, again.adapters["hint"].weight)
    assert not torch.equal(same.adapters["hint"].weight, other.adapters["hint"].weight)
    alone = distiller([Term(name="cosine_hint"), Term(name="hint", student="encoder", teacher="encoder")], seed=3)
    assert torch.equal(alone.adapters["hint"].weight, same.adapters["hint"].weight)
    assert not torch.equal(alone.adapters["cosine_hint"].weight, alone.adapters["hint"].weight)
    torch.random.set_rng_state(state)
    Distiller(network(), network(8, 3), build_terms(FEATURES))
    after = torch.rand(())
    torch.random.set_rng_state(state)
    network(), network(8, 3)
    assert after == torch.rand(())  # adapters take no random numbers from anybody


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_half_precision_channels_last_and_compiled(batch: dict[str, Any], compiled: bool) -> None:
    module = distiller([Term(name=name) for name in ("cross_entropy", "hint", "pixel_kl")])
    plain = {name: value.item() for name, value in module.term_values(batch).items()}
    module.model.to(memory_format=torch.channels_last)
    if compiled:
        module.model.compile(backend="eager")
    module.open_taps()
    with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dynamo looks at .grad of everything, and hides the warning that this gives
        for _ in range(2):
            values = module.term_values(batch)
    sum(values.values()).backward()
    module.close_taps()
    assert all(value.dtype == torch.float32 for value in values.values())
    assert {name: value.item() for name, value in values.items()} == pytest.approx(plain, rel=0.05)
    assert module.model.network.encoder[0][0].weight.grad.any()
    if compiled:
        torch.compiler.reset()


def test_a_black_box_serves_terms_on_logits_only() -> None:
    with pytest.raises(
        ConfigError, match=r"'answers\.onnx' gives answers without .*but hint, .* learn from .*: pixel_kl"
    ):
        distiller(teacher=Answers())
    distiller([Term(name="channel_kl")], teacher=Answers())


def test_a_teacher_of_one_class_has_nothing_to_compare_it_with() -> None:
    with pytest.raises(ConfigError, match=r"'pixel_kl' compares at least 2 .* knows Roof only; say in 'classes'"):
        distiller([Term(name="pixel_kl")], teacher=Answers(known=(1,)))
    distiller([Term(name="binary_kl"), Term(name="channel_kl")], teacher=Answers(known=(1,)))


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ({"student": "encoder.7"}, r"'student' features: .*no module 'encoder\.7'.*encoder\.0"),
        ({"student": "encoder", "teacher": "stage:9"}, r"'teacher' features: .*'stage:9'.*stage:2"),
    ],
)
def test_an_unknown_tap_names_its_side_and_the_nearest(tap: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        distiller([Term(name="hint", **tap)])


def test_padded_crops_are_refused_where_features_are_compared(batch: dict[str, Any]) -> None:
    cut = {name: value[..., :30, :30] if value.ndim > 1 else value for name, value in batch.items()}
    assert distiller([Term(name="pixel_kl")]).term_values(cut)["pixel_kl"] > 0
    with pytest.raises(ConfigError, match=r"30 × 30 pixels.*crops\.size to a multiple of 4 of at least 8"):
        distiller().term_values(cut)


@pytest.mark.parametrize(
    ("adapter", "refused"),
    [
        ({}, ""),
        ({"size": 64, "fit": "stretch"}, ""),
        ({"size": 64, "fit": "letterbox"}, ""),  # square into square: nothing is filled
        ({"size": (64, 96), "fit": "letterbox"}, "letterboxes crops of 32 × 32 pixels to 64 × 96"),
        ({"size": 32, "fit": "tile"}, ""),
        ({"size": 16, "fit": "tile"}, "cuts crops of 32 × 32 pixels to 16 × 16"),
    ],
)
def test_an_adapter_shows_features_where_it_shows_the_whole_crop(
    batch: dict[str, Any], adapter: dict[str, Any], refused: str
) -> None:
    foreign = AdaptedNetwork(network(8, 3), Adapter(**adapter), bands=3, classes=3, scaled=False)
    module = distiller([Term(name="hint")], teacher=TorchTeacher(foreign, CLASSES))
    with pytest.raises(ConfigError, match=refused) if refused else contextlib.nullcontext():
        assert module.term_values(batch)["hint"] > 0


def test_a_teacher_of_other_classes_is_an_error(batch: dict[str, Any]) -> None:
    other = build_model(
        "unet", ClassMap.build([("A", None, None), ("B", None, None)]), options={"width": 4, "depth": 2}
    )
    with pytest.raises(ModelError, match="2 classes but the student 3"):
        distiller([Term(name="pixel_kl")], teacher=other).term_values(batch)


@pytest.mark.parametrize("form", ["pair", "mapping", "mask", "named"])
def test_ordinary_data_loaders_will_do(batch: dict[str, Any], form: str) -> None:
    images, targets = batch["image"].float(), batch["target"].long()
    forms: dict[str, Any] = {
        "pair": (images, targets),
        "mapping": {"image": images, "target": targets},
        "mask": {"image": images, "mask": targets},
        "named": {"image": images, "target": targets, "name": ["a", "b", "c", "d"]},
    }
    module = distiller([Term(name="cross_entropy"), Term(name="pixel_kl")])
    loader = torch.utils.data.DataLoader([forms[form]], batch_size=None)
    trainer = fit(module, [forms[form]])
    assert trainer.callback_metrics["train/loss"] > 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*many workers.*")
        (metrics,) = trainer.validate(module, loader, verbose=False)
    assert metrics["val/loss"] > 0
    with torch.no_grad():
        score = Confusion(3).update(module.model.eval()(images).argmax(1), targets).scores().mean_iou
    assert metrics["val/mean_iou"] == pytest.approx(score, abs=1e-6)
