"""Networks that a user's function makes: built, described, saved, and made again only where the code is trusted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from segshrink.compression.pruning.width_scaling import shrink
from segshrink.errors import ModelError
from segshrink.models import SegmentationModel, build_model, load_model
from segshrink.models.class_change import with_classes
from segshrink.models.folder import functions_of
from segshrink.prediction import open_backend
from segshrink.user_code import is_function, trusted_functions

CODE = """
from pathlib import Path
import torch
from torch import nn

Path("{folder}", "imported").touch()


class Net(nn.Module):
    stride = 4

    def __init__(self, classes, bands, width=16):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(bands, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )
        self.head = nn.Conv2d(2 * width, classes, 1)

    def forward(self, images):
        return {{"out": self.head(self.down(images))}}


class TwoHeads(Net):
    def __init__(self, classes, bands):
        super().__init__(classes, bands)
        self.auxiliary = nn.Conv2d(32, classes, 1)

    def forward(self, images):
        features = self.down(images)
        return {{"out": self.head(features), "aux": self.auxiliary(features)}}


def net(classes, bands, width=16):
    return Net(classes, bands, width)


def other_names(num_classes, in_channels=1):
    return Net(num_classes, in_channels)


def fixed(channels):
    return Net(channels, 3)


def flat(classes):
    return nn.Sequential(nn.Conv2d(3, classes, 1), nn.Flatten())


def picky(classes):
    class Picky(Net):
        def forward(self, images):
            raise AttributeError("no such luck")
    return Picky(classes, 3)


def deep(n_classes, n_channels):
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv2d(n_channels, n_classes, 1)

        def forward(self, images):
            if images.shape[2] % 64 or images.shape[3] % 64:
                raise ValueError("sides must be multiples of 64")
            return self.head(images)
    return Deep()


def squashed(classes):
    return nn.Sequential(nn.Conv2d(3, classes, 1), nn.Softmax(1))


def lazy(classes):
    return nn.Sequential(nn.LazyConv2d(classes, 1))


def moody(classes):
    class Moody(Net):
        def forward(self, images):
            out = super().forward(images)
            return {{"loss": out["out"].mean()}} if self.training else out
    return Moody(classes, 3)


def scripted(classes):
    return torch.jit.script(nn.Conv2d(3, classes, 1))


def leaves(classes):
    raise SystemExit(3)


ready = Net(6, 3)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that leaves a file when it is imported."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE.format(folder=tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def forget(module: str, folder: Path) -> None:
    sys.modules.pop(module, None)
    (folder / "imported").unlink(missing_ok=True)


def test_a_function_is_told_from_other_ids() -> None:
    assert is_function("my_nets:small")
    assert is_function("package.nets:Small")
    for other in ("mobile", "smp:Unet", "torchvision:fcn_resnet50", "hf:folder", "custom:Net", "onnx:net", "a:b:c"):
        assert not is_function(other)


def test_it_gets_the_counts_by_name_and_takes_raw_pixels(module: str, classes) -> None:
    model = build_model(f"{module}:net", classes, bands=4, options={"width": 5}).eval()
    assert (model.description.id, model.description.options) == (f"{module}:net", {"width": 5})
    assert (model.description.stride, model.description.bands, model.network.head.in_channels) == (4, 4, 10)
    assert model(torch.zeros(1, 4, 45, 37, dtype=torch.uint8)).shape == (1, 6, 45, 37)
    assert build_model(f"{module}:other_names", classes, bands=2).network.down[0].in_channels == 2
    assert build_model(f"{module}:fixed", classes, options={"channels": 6}).num_classes == 6


def test_a_library_s_class_is_such_a_function(classes) -> None:
    options = {"encoder_name": "resnet18", "encoder_weights": None, "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    model = build_model("segmentation_models_pytorch:Unet", classes, bands=2, options=options).eval()
    assert model.description.stride == 8
    assert model(torch.zeros(1, 2, 9, 20)).shape == (1, 6, 9, 20)


def test_one_channel_is_a_sigmoid_for_two_classes(module: str) -> None:
    two = ["ground", "roof"]
    from segshrink.classes import ClassMap

    model = build_model(f"{module}:fixed", ClassMap.build(two), options={"channels": 1})
    assert model.description.sigmoid
    assert build_model(f"{module}:net", ClassMap.build(two), sigmoid=True).network.head.out_channels == 1


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        ("nett", {}, "has no function 'nett'; did you mean 'net'"),
        ("net", {"widht": 3}, "unexpected keyword argument 'widht'"),
        ("fixed", {}, "missing 1 required positional argument: 'channels'"),
        ("fixed", {"channels": 5}, "gives 5 channels, but 6 classes are named"),
        ("flat", {}, "expected logits"),
        ("picky", {}, "no such luck"),
        ("Path", {}, "expected a torch.nn.Module"),
        ("leaves", {}, "failed with SystemExit: 3"),
        ("ready", {}, "is Net, no function"),
        ("scripted", {}, "is a program of TorchScript"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning", "ignore:.*torch.jit.script:DeprecationWarning")
def test_what_is_wrong_is_one_sentence(module: str, classes, function: str, options: dict, words: str) -> None:
    with pytest.raises(ModelError) as error:
        build_model(f"{module}:{function}", classes, options=options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_imports_nothing_unless_it_is_trusted(module: str, classes, tmp_path: Path) -> None:
    name = f"{module}:net"
    model = build_model(name, classes, options={"width": 3}).eval()
    with torch.no_grad():
        model.network.down[1].running_mean.fill_(0.5)
    model.save(tmp_path / "model")
    record = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (record["id"], record["options"]) == (name, {"width": 3})
    images = torch.randint(0, 256, (1, 3, 20, 24), dtype=torch.uint8)
    forget(module, tmp_path)
    assert functions_of(tmp_path / "model", "net.onnx") == [name]
    for other in ((), ("other:net",)):
        with trusted_functions(*other), pytest.raises(ModelError, match=f"{module}:net.*--trust"):
            load_model(tmp_path / "model")
    assert not (tmp_path / "imported").exists()
    with trusted_functions(name):
        trusted = load_model(tmp_path / "model").eval()
    assert (tmp_path / "imported").exists()
    given = type(trusted.network)(6, 3, 3)
    for opened in (trusted, load_model(tmp_path / "model", trust=True), load_model(tmp_path / "model", network=given)):
        assert opened.description == model.description
        assert torch.equal(opened.eval()(images), model(images))
    with pytest.raises(ModelError, match="--trust"):
        load_model(tmp_path / "model")


def test_a_folder_whose_function_has_changed_is_named(module: str, classes, tmp_path: Path) -> None:
    build_model(f"{module}:net", classes).save(tmp_path / "model")
    forget(module, tmp_path)
    path = tmp_path / f"{module}.py"
    path.write_text(
        # Longer, too: Python takes a compiled file of the same second and size for the same.
        path.read_text().replace("2 * width, classes", "3 * width, classes").replace("width, 2 *", "width, 3 *") + "#"
    )
    with pytest.raises(ModelError, match="doesn't fit"):
        load_model(tmp_path / "model", trust=True)


def test_a_smaller_copy_comes_back(module: str, classes, tmp_path: Path) -> None:
    model = build_model(f"{module}:net", classes).eval()
    half = shrink(model, width=0.5)
    half.save(tmp_path / "half")
    loaded = load_model(tmp_path / "half", trust=True).eval()
    assert loaded.network.down[3].out_channels == 16
    images = torch.randint(0, 256, (1, 3, 20, 24), dtype=torch.uint8)
    assert torch.equal(loaded(images), half.eval()(images))


def test_a_network_without_a_function_can_not_be_made_smaller(classes) -> None:
    model = SegmentationModel.wrap(nn.Conv2d(3, 6, 1), classes=classes)
    with pytest.raises(ModelError, match="make it by a function"):
        shrink(model, width=0.5)


def test_its_classes_can_change(module: str, classes) -> None:
    from segshrink.classes import ClassMap

    model = build_model(f"{module}:net", classes)
    changed = with_classes(model, ClassMap.build(["one", "two"]), [[0], [1, 2]])
    assert changed.network.head.out_channels == 2
    assert torch.equal(changed.network.head.weight[0], model.network.head.weight[0])


def test_a_further_output_takes_no_part_of_a_split_classes_share(module: str, classes) -> None:
    from segshrink.classes import ClassMap

    model = build_model(f"{module}:TwoHeads", classes).eval()
    names = [*classes.names, "more"]
    split = with_classes(model, ClassMap.build(names), [[0], [1], [2], [3], [4], [5], [5]]).eval()
    images = torch.zeros(1, 3, 16, 16)
    with torch.no_grad():
        before, after = model(images).softmax(dim=1), split(images).softmax(dim=1)
    torch.testing.assert_close(after[:, 5:], before[:, [5, 5]] / 2)


def test_a_bank_is_opened_where_its_members_code_is_trusted(module: str, classes, tmp_path: Path) -> None:
    for number in range(2):
        build_model(f"{module}:net", classes, options={"width": 3}).save(tmp_path / f"bank/member-{number}/model")
    (tmp_path / "bank/bank.json").write_text(json.dumps({"members": [{}, {}], "images": []}))
    with pytest.raises(ModelError, match="--trust"):
        open_backend(tmp_path / "bank")
    assert open_backend(tmp_path / "bank", trust=True).classes == classes


def test_names_that_other_libraries_use_and_a_stride_that_nothing_states_are_found(module: str, classes) -> None:
    model = build_model(f"{module}:deep", classes, bands=4).eval()
    assert (model.description.stride, model.network.head.in_channels) == (64, 4)
    assert model(torch.zeros(1, 4, 50, 70)).shape == (1, 6, 50, 70)


def test_probabilities_for_logits_are_noticed(module: str, classes, caplog: pytest.LogCaptureFixture) -> None:
    build_model(f"{module}:net", classes)
    assert "softmax" not in caplog.text
    build_model(f"{module}:squashed", classes)
    assert "gives numbers from 0 to 1, as a softmax or sigmoid does" in caplog.text


def test_lazy_layers_come_back(module: str, classes, tmp_path: Path) -> None:
    model = build_model(f"{module}:lazy", classes).eval()
    model.save(tmp_path / "model")
    images = torch.randint(0, 256, (1, 3, 20, 24), dtype=torch.uint8)
    assert torch.equal(load_model(tmp_path / "model", trust=True).eval()(images), model(images))


def test_another_answer_in_training_is_one_sentence(module: str, classes) -> None:
    model = build_model(f"{module}:moody", classes).train()
    with pytest.raises(ModelError, match=r"answers with \(\) in training, expected logits"):
        model(torch.zeros(2, 3, 64, 64))
