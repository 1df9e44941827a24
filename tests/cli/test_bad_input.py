"""Every wrong input gets one sentence with the file and the remedy, no traceback, and leaves nothing half-written."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segshrink.cli import main

Spoil = Callable[[Path], tuple[str, ...]]


def _missing_folder(root: Path) -> tuple[str, ...]:
    description = root.parent / "elsewhere.yaml"
    content = yaml.safe_load((root / "dataset.yaml").read_text())
    description.write_text(yaml.safe_dump({**content, "root": "no-such-folder"}))
    shutil.move(description, root / "dataset.yaml")
    return "no-such-folder", "root"


def _empty_folder(root: Path) -> tuple[str, ...]:
    for folder in ("train", "val"):
        shutil.rmtree(root / folder)
    return "images/*.jpg", str(root)


def _image_without_mask(root: Path) -> tuple[str, ...]:
    (root / "train/masks/t1.png").unlink()
    return "t1", "mask"


def _mask_without_image(root: Path) -> tuple[str, ...]:
    (root / "val/images/v1.jpg").unlink()
    return "v1", "image"


def _other_size(root: Path) -> tuple[str, ...]:
    mask = root / "train/masks/t0.png"
    Image.open(mask).crop((0, 0, 40, 64)).save(mask)
    return "t0.png", "64", "40", "size"


def _undeclared_color(root: Path) -> tuple[str, ...]:
    path = root / "train/masks/t2.png"
    mask = np.array(Image.open(path))
    mask[3:5, 3:6] = (1, 2, 3)
    Image.fromarray(mask).save(path)
    return "t2.png", "#010203", "6 pixels", "declare"


def _truncated_jpeg(root: Path) -> tuple[str, ...]:
    path = root / "train/images/t0.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    return "t0.jpg", "truncated"


def _text_named_png(root: Path) -> tuple[str, ...]:
    (root / "val/masks/v0.png").write_text("I am not a picture.\n")
    return "v0.png", "not"


def _sixteen_bit_mask(root: Path) -> tuple[str, ...]:
    Image.fromarray(np.full((64, 64), 1234, np.uint16)).save(root / "train/masks/t0.png")
    return ("t0.png",)


SPOILED = (
    _missing_folder,
    _empty_folder,
    _image_without_mask,
    _mask_without_image,
    _other_size,
    _undeclared_color,
    _truncated_jpeg,
    _text_named_png,
    _sixteen_bit_mask,
)


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__.strip("_"))
def test_spoiled_data_stops_training(segshrink, recipe: Path, data: Path, tmp_path: Path, spoil: Spoil) -> None:
    expected = spoil(data.parent)
    result = segshrink("train", recipe, "--out", tmp_path / "run")
    assert result.status == 1
    for words in expected:
        assert words in result.sentence
    assert not (tmp_path / "run" / "model").exists()
    assert not list(tmp_path.rglob(".segshrink-*"))


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__.strip("_"))
def test_spoiled_data_is_found_by_inspect(segshrink, data: Path, spoil: Spoil) -> None:
    expected = spoil(data.parent)
    result = segshrink("inspect", data)
    assert result.status == 1
    assert "Traceback" not in result.err
    assert expected[0] in result.out + result.err


def test_a_mask_of_16_bits_with_declared_values_is_fine(segshrink, data: Path) -> None:
    content = yaml.safe_load(data.read_text())
    values = {"Ground": 0, "Roof": 700, "Water": 1234}
    content["classes"] = [{"name": name, "value": value} for name, value in values.items()]
    data.write_text(yaml.safe_dump(content))
    for path in data.parent.glob("*/masks/*.png"):
        classes = np.array(Image.open(path))[:, :, 0].astype(np.uint16)
        Image.fromarray(np.select([classes == 200, classes == 30], [700, 1234], 0).astype(np.uint16)).save(path)
    assert segshrink("inspect", data).status == 0


def test_one_band_for_a_model_of_three(segshrink, model: Path, onnx_file: Path, tmp_path: Path) -> None:
    image = tmp_path / "gray.png"
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(image)
    for source in (model, onnx_file):
        result = segshrink("predict", source, image, "-o", tmp_path / "out")
        assert result.status == 1
        assert "gray.png has 1 band" in result.sentence
        assert "takes 3 bands" in result.sentence
        assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("section", "wrong", "right"),
    [((), "techer", "teacher"), (("crops",), "batchsize", "batch_size"), (("teacher", "training"), "epoch", "epochs")],
)
def test_unknown_keys_name_the_nearest(
    segshrink, recipe: Path, tmp_path: Path, section: tuple[str, ...], wrong: str, right: str
) -> None:
    content = json.loads(recipe.read_text())
    inner = content
    for key in section:
        inner = inner[key]
    inner[wrong] = inner.pop(right)
    recipe.write_text(json.dumps(content))
    result = segshrink("train", recipe, "--out", tmp_path / "run")
    assert result.status == 1
    assert wrong in result.sentence
    assert f"'{right}'" in result.sentence
    assert str(recipe) in result.sentence
    assert not (tmp_path / "run").exists()


def test_unknown_keys_of_a_data_set_and_of_overrides(segshrink, recipe: Path, data: Path, tmp_path: Path) -> None:
    result = segshrink("train", recipe, "crops.sise=64", "--out", tmp_path / "run")
    assert result.status == 2
    assert "'size'" in result.sentence
    data.write_text(data.read_text() + "unlabelled: more/*.jpg\n")
    result = segshrink("inspect", data)
    assert result.status == 1
    assert "'unlabeled'" in result.sentence


def _rename_a_class(data: Path) -> None:
    data.write_text(data.read_text().replace("Roof", "Building"))


def test_classes_that_are_not_the_models(segshrink, model: Path, onnx_file: Path, data: Path) -> None:
    _rename_a_class(data)
    out = data.parent / "out"
    for arguments in (
        ("evaluate", model, "--data", data, "--out", out),
        ("evaluate", onnx_file, "--data", data, "--out", out),
    ):
        result = segshrink(*arguments)
        assert result.status == 1
        assert "Building" in result.sentence
        assert "Roof" in result.sentence
        assert not (out / "evaluation.json").exists()


class _Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.path)!r}, 'w').write('boom')",)


def _write_bomb(path: Path, target: Path, *, zipped: bool) -> None:
    """A plain pickle, or the zip archive that torch.save writes."""
    content = pickle.dumps({"state_dict": _Bomb(target)}, protocol=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not zipped:
        path.write_bytes(content)
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_malicious_pickle_as_encoder_weights(segshrink, recipe: Path, tmp_path: Path, zipped: bool) -> None:
    _write_bomb(tmp_path / "weights.pth", tmp_path / "boom", zipped=zipped)
    result = segshrink(
        "train", recipe, f"teacher.model.encoder_weights={tmp_path / 'weights.pth'}", "teacher.model.id=mobile",
        "teacher.model.options={}", "-o", tmp_path / "run",
    )  # fmt: skip
    assert result.status == 1
    assert "weights.pth" in result.sentence
    assert "safetensors" in result.sentence
    assert not (tmp_path / "boom").exists()
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_malicious_pickle_as_model(segshrink, model: Path, tmp_path: Path, zipped: bool) -> None:
    stranger = tmp_path / "stranger"
    shutil.copytree(model, stranger)
    _write_bomb(stranger / "model.safetensors", tmp_path / "boom", zipped=zipped)
    result = segshrink("export", stranger, "-o", tmp_path / "stranger.onnx")
    assert result.status == 1
    assert "model.safetensors" in result.sentence
    assert not (tmp_path / "boom").exists()
    assert not (tmp_path / "stranger.onnx").exists()


def test_a_malicious_pickle_as_onnx(segshrink, data: Path, tmp_path: Path) -> None:
    _write_bomb(tmp_path / "model.onnx", tmp_path / "boom", zipped=False)
    image = data.parent / "val/images/v0.jpg"
    result = segshrink("predict", tmp_path / "model.onnx", image, "-o", tmp_path / "out")
    assert result.status == 1
    assert "model.onnx" in result.sentence
    assert not (tmp_path / "boom").exists()


def test_a_malicious_pickle_as_the_checkpoint_to_resume(segshrink, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert segshrink("train", recipe, "-o", out, "teacher.model.id=no-such-net").status == 1
    shutil.rmtree(out)
    from segshrink.config import dump_yaml, load_recipe

    out.mkdir()
    (out / "config.yaml").write_text(dump_yaml(load_recipe(recipe)))
    (out / "run.json").write_text(json.dumps({"role": "teacher", "status": "running"}))
    _write_bomb(out / "checkpoints/last.ckpt", tmp_path / "boom", zipped=True)
    result = segshrink("train", recipe, "-o", out, "--resume")
    assert result.status == 1
    assert "last.ckpt" in result.sentence
    assert not (tmp_path / "boom").exists()


def test_files_that_are_not_there(segshrink, model: Path, data: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    image = data.parent / "val/images/v0.jpg"
    for arguments in (
        ("train", nothing, "-o", tmp_path / "run"),
        ("inspect", nothing),
        ("evaluate", nothing, "--data", data),
        ("evaluate", model, "--data", nothing),
        ("predict", nothing, image, "-o", tmp_path / "out"),
        ("predict", model, nothing, "-o", tmp_path / "out"),
        ("report", nothing),
        ("export", nothing, "-o", tmp_path / "x.onnx"),
    ):
        result = segshrink(*arguments)
        assert result.status == 1, arguments
        assert "nothing" in result.sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [["no-such-verb"], ["train"], ["distill"], ["evaluate", "m", "--split", "all"], ["inspect", "--no"]],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage: segshrink" in capsys.readouterr().err


def test_names_can_not_command_the_terminal(segshrink, tmp_path: Path) -> None:
    result = segshrink("inspect", tmp_path / "a\x1b[2Jb\nc.yaml")
    assert result.status == 1
    assert "\x1b" not in result.sentence
    assert "c.yaml" in result.sentence
