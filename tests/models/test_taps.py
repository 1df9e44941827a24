"""Taps: features of modules by name, whatever becomes of the model meanwhile."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.checkpoint import checkpoint

from segshrink.errors import ModelError
from segshrink.models import SegmentationModel, Taps, build_model

IMAGES = torch.arange(2 * 3 * 32 * 32).remainder(251).reshape(2, 3, 32, 32).to(torch.uint8)
# Dynamo asks tensors for .grad and hides the warning that comes of it, unless warnings are errors.
_HIDDEN_BY_DYNAMO = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
NAMES = ("encoder", "encoder.0", "network.decoder.0", "head@input", "logits")


@pytest.fixture
def model(classes) -> SegmentationModel:
    return build_model("unet", classes, options={"width": 4, "depth": 2})


@pytest.fixture
def small(model) -> SegmentationModel:
    """What compiles quickly."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 1))
    return SegmentationModel(network, model.description).eval()


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))  # noqa: S301  # our own


def expected(model: SegmentationModel) -> dict[str, Tensor]:
    """The same features, computed by the parts of the U-Net."""
    network = model.network
    first = network.encoder[0](model.normalize(IMAGES))
    second = network.encoder[1](network.pool(first))
    last = network.decoder[0](torch.cat([network.up[0](second), first], dim=1))
    return dict(zip(NAMES, (second, first, last, last, network.head(last)), strict=True))


def check(taps: Taps, wanted: dict[str, Tensor]) -> None:
    assert set(taps.features) == set(NAMES)
    for name, value in wanted.items():
        assert torch.allclose(taps.features[name], value, atol=1e-5), name


def test_features_by_path_and_role_are_what_the_parts_give(model):
    model.eval()
    with Taps(model, [*NAMES, "encoder"]) as taps:
        assert taps.names == NAMES
        assert dict(taps.paths) == {
            "encoder": "network.encoder.1",
            "encoder.0": "network.encoder.0",
            "network.decoder.0": "network.decoder.0",
            "head@input": "network.head@input",
            "logits": "",
        }
        model(IMAGES)
        check(taps, expected(model))
        model(IMAGES[:1])
        assert all(len(value) == 1 for value in taps.features.values())
        taps.clear()
        assert not taps.features


def test_gradients_flow_through_features(model):
    with Taps(model, ["encoder"]) as taps:
        model(IMAGES)
        taps.features["encoder"].square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.network.encoder.parameters())
    assert all(parameter.grad is None for parameter in model.network.decoder.parameters())


def test_closing_removes_every_hook_even_after_an_exception(model, tmp_path: Path):
    state = list(model.state_dict())
    taps = Taps(model, NAMES)
    assert hooks_of(model)
    with pytest.raises(ModelError, match="bands"), taps:
        model(IMAGES[:, :2])
    taps.close()
    assert not hooks_of(model)
    assert not taps.features
    model(IMAGES)
    assert not taps.features
    assert list(model.state_dict()) == state
    torch.save(model, tmp_path / "whole.pt")
    assert list(pickled(model).state_dict()) == state


def test_a_forward_that_fails_leaves_taps_usable(model):
    model.eval()
    with Taps(model, NAMES) as taps:
        with pytest.raises(ModelError, match="bands"):
            model(IMAGES[:, :2])
        model(IMAGES)
        check(taps, expected(model))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("encoder.7", "has no module 'encoder.7'; the nearest are: encoder.1, encoder.0"),
        ("encodr", "the nearest are: encoder"),
        ("stage:9", "no role or module 'stage:9'; the nearest are: stage:1, stage:0"),
        ("qqqq", "the nearest are: encoder, pool, up, decoder, head"),
        ("", "has no module ''"),
        ("up", "'up' only holds other modules and is never run; tap one of: up.0"),
    ],
)
def test_unknown_names_say_what_is_near(model, name: str, words: str):
    with pytest.raises(ModelError) as caught:
        Taps(model, ["encoder.0", name])
    assert words in str(caught.value)
    assert not hooks_of(model)


def test_elements_of_an_output_are_chosen_by_key(classes):
    model = build_model("mobile", classes, options={"width": 0.35}).eval()
    with Taps(model, ["network.encoder"]), pytest.raises(ModelError, match=r"0 \(2, 8, 16, 16\).*choose one with '#'"):
        model(IMAGES)
    with (
        Taps(model, ["encoder#4"]),
        pytest.raises(ModelError, match=r"'network.encoder#4' is not there; found are: 0 "),
    ):
        model(IMAGES)
    with Taps(model, ["encoder#2"]) as taps:
        model(IMAGES)
        assert torch.equal(taps.features["encoder#2"], model.network.encoder(model.normalize(IMAGES))[2])


def test_nested_outputs_are_reached_by_dots():
    class Nested(nn.Module):
        def forward(self, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
            return {"hidden": (images + 1, images + 2), "mask": (images.long(),)}

    model = nn.Sequential(Nested())
    images = torch.zeros(1, 2, 8, 8)
    with Taps(model, ["0#hidden.1"]) as taps:
        model(images)
        assert torch.equal(taps.features["0#hidden.1"], images + 2)
    with Taps(model, ["0#mask.0"]), pytest.raises(ModelError, match=r"'0#mask.0' is no feature map \(N, C, H, W\)"):
        model(images)


def test_inputs_are_chosen_by_number():
    class Join(nn.Module):
        def forward(self, image: Tensor, *, skip: Tensor) -> Tensor:
            return image + skip

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.join = Join()

        def forward(self, images: Tensor) -> Tensor:
            return self.join(images, skip=images + 5)

    images = torch.zeros(1, 2, 8, 8)
    with Taps(model := Network(), ["join@input", "join@input#1"]) as taps:
        model(images)
        assert torch.equal(taps.features["join@input"], images)
        assert torch.equal(taps.features["join@input#1"], images + 5)


def test_vectors_are_no_feature_maps():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with Taps(model, ["2"]), pytest.raises(ModelError, match=r"'2' is no feature map .*a tensor \(2, 4\)"):
        model(IMAGES.float())


def test_a_module_that_does_not_run_is_named(classes):
    model = build_model("mobile", classes, options={"width": 0.35})
    with Taps(model, ["encoder.features"]), pytest.raises(ModelError, match=r"'network.encoder.features' is not run"):
        model(IMAGES)


@pytest.mark.parametrize("gradients", [True, False])
def test_a_feature_that_is_overwritten_in_place_is_refused(model, gradients: bool):
    assert isinstance(model.network.encoder[0][2], nn.ReLU)
    refused = pytest.raises(ModelError, match=r"'network.encoder.0.1' is overwritten in place by what follows")
    with torch.set_grad_enabled(gradients), Taps(model, ["encoder.0.1"]), refused:
        model(IMAGES)
    with Taps(model, ["encoder.0.2"]) as taps:
        model(IMAGES)
        assert (taps.features["encoder.0.2"] >= 0).all()


def test_the_last_call_of_a_module_wins():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twofold = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.constant_(self.twofold.weight, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.twofold(self.twofold(images)) + 1

    with Taps(model := Twice(), ["twofold"]) as taps:
        model(torch.ones(1, 1, 4, 4))
        assert torch.equal(taps.features["twofold"], torch.full((1, 1, 4, 4), 4.0))


def test_recomputation_in_the_backward_pass_is_not_recorded():
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            return checkpoint(self.inner, images, use_reentrant=False)

    with Taps(model := Checkpointed(), ["inner"]) as taps:
        loss = model(torch.randn(1, 3, 8, 8)).square().mean()
        before = taps.features["inner"]
        loss.backward()
        assert taps.features["inner"] is before


def test_a_path_is_meant_where_no_role_of_its_name_is_found():
    model = nn.Sequential()
    model.add_module("decoder", nn.Conv2d(3, 4, 1))
    model.add_module("flat", nn.Flatten())
    with Taps(model, ["decoder"]) as taps:
        assert taps.paths["decoder"] == "decoder"


def test_autocast_gives_features_in_its_precision(model):
    with torch.autocast("cpu", dtype=torch.bfloat16), Taps(model, NAMES) as taps:
        model(IMAGES)
        assert taps.features["encoder.0"].dtype == torch.bfloat16
        assert taps.features["logits"].dtype == torch.float32


def test_inference_mode_works(model):
    model.eval()
    with torch.inference_mode(), Taps(model, NAMES) as taps:
        model(IMAGES)
        check(taps, expected(model))


def test_copies_and_pickles_have_no_working_taps(model):
    with Taps(model, NAMES) as taps:
        model(IMAGES)
        features = dict(taps.features)
        for twin in (copy.deepcopy(model), pickled(model)):
            twin(IMAGES[:1])
            assert all(taps.features[name] is value for name, value in features.items())
        closed = copy.deepcopy(taps)
        assert closed.names == ()
        model(IMAGES[:1])
        assert len(taps.features["encoder"]) == 1
        assert not closed.features


def test_weight_averaging_copies_a_task_that_taps_its_model(model):
    class Task(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.taps = Taps(model, NAMES)

    task = Task()
    model(IMAGES)
    features = dict(task.taps.features)
    # What Lightning's EMAWeightAveraging makes of a task.
    averaged = AveragedModel(task, avg_fn=get_ema_avg_fn(0.5), use_buffers=True)
    averaged.update_parameters(task)
    averaged.module.model(IMAGES)
    assert all(task.taps.features[name] is value for name, value in features.items())
    assert not averaged.module.taps.features
    assert set(averaged.state_dict()) == {"n_averaged", *(f"module.{name}" for name in task.state_dict())}


Compile = Callable[[SegmentationModel], nn.Module]


def whole(model: SegmentationModel) -> nn.Module:
    model.compile(backend="eager", fullgraph=True)
    return model


def part(model: SegmentationModel) -> nn.Module:
    model.network.compile(backend="eager")
    return model


def wrapped(model: SegmentationModel) -> nn.Module:
    return torch.compile(model, backend="eager")


def check_small(taps: Taps, model: SegmentationModel, logits: Tensor) -> None:
    first = model.network[:2](model.normalize(IMAGES))
    assert torch.allclose(taps.features["stage:1"], first, atol=1e-5)
    assert torch.allclose(taps.features["2@input"], first, atol=1e-5)
    assert torch.equal(taps.features["logits"], logits)


@_HIDDEN_BY_DYNAMO
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("compiled", [whole, part, wrapped])
def test_models_that_ran_compiled_before_and_run_on_after(small, compiled: Compile):
    runnable = compiled(small)
    logits = runnable(IMAGES)
    with Taps(runnable, ["stage:1", "2@input", "logits"]) as taps:
        assert torch.allclose(runnable(IMAGES), logits, atol=1e-5)
        check_small(taps, small, runnable(IMAGES))
        taps.features["stage:1"].square().mean().backward()
        assert small.network[0].weight.grad is not None
    runnable(IMAGES)
    assert not taps.features


@_HIDDEN_BY_DYNAMO
@pytest.mark.usefixtures("_fresh_compiler")
def test_models_that_are_compiled_after_the_taps_are_opened(small):
    taps = Taps(small, ["stage:1", "2@input", "logits"])
    small.network.compile(backend="eager")
    for _ in range(2):
        check_small(taps, small, small(IMAGES))
    taps.close()
    small(IMAGES)
    assert not taps.features


def test_distributed_models_are_looked_through(model, tmp_path: Path):
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        with Taps(parallel, NAMES) as taps:
            logits = parallel(IMAGES)
            assert taps.paths["encoder"] == "network.encoder.1"
            (taps.features["encoder"].square().mean() + logits.mean()).backward()
            assert all(parameter.grad is not None for parameter in model.parameters())
        assert not hooks_of(model)
    finally:
        distributed.destroy_process_group()
