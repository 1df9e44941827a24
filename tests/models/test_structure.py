"""Structures: what was made smaller comes back from plain data, and nothing else does."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from segshrink.errors import ModelError
from segshrink.models import Taps, build_model, inherit_encoder, list_roles, load_model
from segshrink.models.memory_efficient_relu import use_memory_efficient_relu
from segshrink.models.structure import RemovedBlock, apply_structure, describe_structure, remove_block

UNET = {"width": 16, "depth": 2}


def narrowed():
    """The first level of a U-Net with 8 instead of 16 channels between its convolutions."""
    return {
        "layers": {
            "encoder.0.0": {"out_channels": 8},
            "encoder.0.1": {"num_features": 8},
            "encoder.0.4": {"in_channels": 8},
        },
        "parameters": {},
        "removed": [],
    }


@pytest.fixture
def saved(classes, tmp_path):
    model = build_model("unet", classes, options=UNET)
    apply_structure(model.network, narrowed())
    model.network.encoder[0][0].weight.data.normal_()
    model.network.encoder[0][4].weight.data.normal_()
    model.network.encoder[0][1].running_var.fill_(1)
    model.description = type(model.description)(**{**vars(model.description), "structure": narrowed()})
    model.eval().save(tmp_path / "model")
    return tmp_path / "model", model


def change(folder, **parts):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["structure"] = {**config["structure"], **parts}
    path.write_text(json.dumps(config))


def test_a_smaller_model_comes_back_exactly(saved):
    folder, model = saved
    loaded = load_model(folder).eval()
    assert loaded.description == model.description
    assert loaded.network.encoder[0][0].out_channels == 8
    assert loaded.network.encoder[0][4].weight.shape == (16, 8, 3, 3)
    images = torch.randint(0, 256, (1, 3, 21, 30), dtype=torch.uint8)
    assert torch.equal(loaded(images), model(images))
    assert json.loads((folder / "config.json").read_text())["structure"] == narrowed()


def test_a_structure_is_what_differs(classes):
    built, smaller = (build_model("unet", classes, options=UNET).network for _ in range(2))
    assert describe_structure(built, smaller) is None
    apply_structure(smaller, narrowed())
    assert describe_structure(smaller, built) == narrowed()
    smaller.encoder[0][0] = nn.Linear(3, 8)
    with pytest.raises(ModelError, match=r"'encoder\.0\.0'"):
        describe_structure(smaller, built)


def test_every_kind_of_layer(classes):
    built = nn.ModuleDict(
        {
            "up": nn.ConvTranspose2d(16, 24, 2),
            "deep": nn.Conv2d(16, 16, 3, groups=16, bias=False),
            "linear": nn.Linear(16, 24),
            "group": nn.GroupNorm(4, 16),
            "layer": nn.LayerNorm(16),
            "prelu": nn.PReLU(16),
        }
    )
    smaller = copy.deepcopy(built)
    structure = {
        "layers": {
            "up": {"in_channels": 8, "out_channels": 16},
            "deep": {"in_channels": 8, "out_channels": 8, "groups": 8},
            "linear": {"in_features": 8, "out_features": 16},
            "group": {"num_channels": 8},
            "layer": {"normalized_shape": [8]},
            "prelu": {"num_parameters": 8},
        },
        "parameters": {},
        "removed": [],
    }
    apply_structure(smaller, json.loads(json.dumps(structure)))
    assert describe_structure(smaller, built) == structure
    features = torch.zeros(1, 8, 5, 5)
    assert smaller["up"](features).shape == (1, 16, 6, 6)
    assert smaller["deep"](features).shape == (1, 8, 3, 3)
    assert smaller["linear"](features.movedim(1, 3)).shape == (1, 5, 5, 16)
    assert smaller["group"](features).shape == smaller["prelu"](features).shape == features.shape
    assert smaller["layer"](features.movedim(1, 3)).shape == (1, 5, 5, 8)


@pytest.mark.parametrize(
    ("groups", "words"),
    [(1, "'0' would have more weights"), (15, "'0' can't divide 16 channels in and 16 out among 15")],
)
def test_fewer_groups_are_not_more_weights(groups, words):
    with pytest.raises(ModelError, match=words):
        apply_structure(nn.Sequential(nn.Conv2d(16, 16, 3, groups=16)), {"layers": {"0": {"groups": groups}}})


def test_removed_blocks_take_what_blocks_take(classes, tmp_path):
    model = build_model("separable-unet", classes, options={"width": 0.125}).eval()
    remove_block(model.network, "encoder.1.1")
    structure = describe_structure(
        model.network, build_model("separable-unet", classes, options={"width": 0.125}).network
    )
    assert structure == {"layers": {}, "parameters": {}, "removed": ["encoder.1.1"]}
    model.description = type(model.description)(**{**vars(model.description), "structure": structure})
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model").eval()
    images = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    assert torch.equal(loaded(images), model(images))
    features = torch.rand(1, 2)
    assert RemovedBlock()(features, 0.5, scale=3) is features


def test_smaller_models_have_roles_and_taps_and_train(saved):
    _, model = saved
    assert {role.name for role in list_roles(model)} >= {"encoder", "decoder", "logits"}
    copied = copy.deepcopy(model).train()
    use_memory_efficient_relu(copied)
    with Taps(copied, ["encoder.0.0", "decoder"]) as taps:
        copied(torch.randint(0, 256, (2, 3, 16, 16))).sum().backward()
        assert taps.features["encoder.0.0"].shape == (2, 8, 16, 16)
    assert copied.network.encoder[0][0].weight.grad.shape == (8, 3, 3, 3)


def test_an_encoder_of_other_widths_is_not_inherited(saved, classes):
    _, model = saved
    inherit_encoder(copy.deepcopy(model).network, model.network)
    with pytest.raises(ModelError, match=r"encoder's .* tensors: 0\.0\.weight is"):
        inherit_encoder(build_model("unet", classes, options=UNET).network, model.network)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"layers": {"encoder.9": {"out_channels": 8}}}, "no layer 'encoder.9'"),
        ({"layers": {"encoder.0.0": {"kernel_size": 1}}}, r"'encoder\.0\.0' \(Conv2d\) has no size 'kernel_size'"),
        ({"layers": {"encoder.0.0": {"__class__": 1}}}, "has no size '__class__'"),
        ({"layers": {"encoder.0.0": {"out_channels": 10**5}}}, "can't be 100000, the network has 16"),
        ({"layers": {"encoder.0.0": {"out_channels": 0}}}, "can't be 0"),
        ({"layers": {"encoder.0.0": {"out_channels": True}}}, "can't be True"),
        ({"layers": {"encoder.0.0": {"out_channels": "os.system"}}}, "can't be 'os.system'"),
        ({"layers": {"encoder.0.0": {"out_channels": [8]}}}, r"can't be \[8\]"),
        ({"layers": {"encoder.0.0": 8}}, "no layer"),
        ({"layers": [1]}, "'layers' is a list"),
        ({"layers": {}}, "doesn't fit 'unet'"),
        ({"removed": ["encoder.7"]}, "no block 'encoder.7'"),
        ({"removed": ["forward"]}, "no block 'forward'"),
        ({"removed": [3]}, "no block 3"),
        ({"removed": "encoder"}, "'removed' is a str"),
        ({"parameters": {"head.nothing": [1]}}, "parameter 'head.nothing'"),
        ({"parameters": {"head.bias": [10**5]}}, "parameter 'head.bias' can't be"),
        ({"code": "x"}, "unknown part 'code'"),
    ],
)
def test_damage_is_named(saved, parts, words):
    folder, _ = saved
    change(folder, **parts)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_structure_that_is_no_mapping(saved):
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "structure": "smaller"}))
    with pytest.raises(ModelError, match="damaged"):
        load_model(folder)
