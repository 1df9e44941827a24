"""Files and folders that hold no model this program opens: told by name and first bytes, with what to do instead."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from segshrink.errors import FileError

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
# What a download that failed leaves, in small letters → what it is, and what to do.
_NO_MODELS = {
    b"version https://git-lfs": ("the pointer of a file in Git LFS, not that file", "fetch it: git lfs pull"),
    b"<!doctype html": ("a web page, not a model", "download the file itself, on a hub by its download link"),
    b"<html": ("a web page, not a model", "download the file itself, on a hub by its download link"),
    b'<?xml version="1.0" encoding="utf-8"?><error>': ("a server's message of an error", "download it again"),
}
_MADE_FROM = "give the .onnx file or the network that it was made from"
_ARCHIVE = ("an archive", "unpack it and give the folder or file inside")
_PADDLE = (
    "a file of PaddlePaddle",
    "export its network: paddle2onnx --model_dir FOLDER --save_file net.onnx, and give that",
)
_PICKLE = (
    "a pickle, which could run code and isn't opened",
    "export the network as ONNX where it was trained (Detectron2: tools/deploy/export_model.py --format onnx)",
)
_COREML = ("a model of Core ML", _MADE_FROM)
_TENSORRT = ("an engine of TensorRT, made for one GPU", _MADE_FROM)
_KINDS = {
    **dict.fromkeys((".engine", ".trt", ".plan"), _TENSORRT),
    **dict.fromkeys((".mlmodel", ".mlpackage"), _COREML),
    **dict.fromkeys((".pdparams", ".pdmodel", ".pdiparams"), _PADDLE),
    **dict.fromkeys((".pkl", ".pickle"), _PICKLE),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".mar"), _ARCHIVE),
    **dict.fromkeys((".ort", ".mnn", ".rknn", ".param", ".hef", ".dlc"), ("converted for one runtime", _MADE_FROM)),
    ".msgpack": ("a file of Flax's weights", "export the network as ONNX where it was trained (jax2onnx)"),
    ".pb": (
        "a graph of TensorFlow",
        "convert it: python -m tf2onnx.convert --graphdef {path} --inputs INPUT:0 --outputs OUTPUT:0 --output net.onnx",
    ),
    ".caffemodel": ("a model of Caffe", "convert it to ONNX and give that"),
    ".weights": ("a file of Darknet's weights", "convert it to ONNX and give that"),
    ".npz": ("a file of arrays", "give the network that they belong to, as ONNX"),
    ".npy": ("an array", "give a network; a folder of a teacher's answers is labels:FOLDER"),
}
# Bytes of a checkpoint that are searched for the packages it was made with.
_LOOKED_AT = 1 << 22
_OPENMMLAB = (
    "a checkpoint of OpenMMLab",
    "export it with MMDeploy: python tools/deploy.py DEPLOY_CONFIG MODEL_CONFIG {path} IMAGE --work-dir onnx, and give "
    "that file",
)
# What a checkpoint holds → what it is, and how its users make a file of it that anybody can open.
_PROGRAMS = {
    rb"ultralytics(\.|\n)": (
        "a checkpoint of Ultralytics",
        "export it: yolo export model={path} format=onnx, and give that file",
    ),
    rb"mmengine(\.|\n)": _OPENMMLAB,
    rb"decode_head\.": _OPENMMLAB,
    rb"fastai(\.|\n)": (
        "a learner of fastai",
        "save the network's weights: torch.save(learn.model.state_dict(), 'weights.pth'), and give that file",
    ),
}
_TORCHSCRIPT, _EXPORTED = "torchscript", "exported"


def refuse_no_model(path: Path) -> None:
    """Refuse a file that is empty, or that stands where a download failed.

    Raises:
        FileError: It is; says what to do.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(200).lstrip().lower()
    except OSError:
        return  # who opens it says what is wrong
    if not head and path.stat().st_size == 0:
        raise FileError(f"{path} is empty; copy, download or export it again")
    for start, (what, remedy) in _NO_MODELS.items():
        if head.replace(b"\n", b"").startswith(start):
            raise FileError(f"{path} is {what}; {remedy}")


def looks_like_checkpoint(path: Path) -> bool:
    """Tell whether a file begins like torch's zip archive or like a pickle."""
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80" or zipfile.is_zipfile(path)


def torch_program(path: Path) -> str | None:
    """Tell what torch saved as a program, "torchscript" or "exported", from mere weights, by the names inside."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return None
    if any(name.endswith("/constants.pkl") for name in names):
        return _TORCHSCRIPT
    if any(name.endswith(("models/model.json", "serialized_exported_program.json")) for name in names):
        return _EXPORTED
    return None


def explain_checkpoint(path: Path) -> str | None:
    """Say which program a file of weights is of that exports it by itself, and how; None: it isn't of one."""
    with path.open("rb") as stream:
        content = stream.read(_LOOKED_AT)
    found = (entry for pattern, entry in _PROGRAMS.items() if re.search(pattern, content))
    return next((f"{path} is {what}; {remedy.format(path=path)}" for what, remedy in found), None)


def explain(path: Path) -> str | None:
    """Say in one sentence what a file or folder of others is and what to do; None: nothing is known about it."""
    suffix = path.suffix.lower()
    if suffix in _KINDS:
        what, remedy = _KINDS[suffix]
        return f"{path} is {what}; {remedy.format(path=path)}"
    if not path.is_file():
        return None
    if program := torch_program(path):
        return (
            f"{path} is a program that torch saved ({program}), which can teach (--teacher) and nothing else; export "
            "the network that it was made from as ONNX, or save it as a model folder (docs/networks.md)"
        )
    if suffix in WEIGHT_SUFFIXES:
        if suffix != ".safetensors" and not looks_like_checkpoint(path):
            return f"{path} is not a file of weights or is damaged; download or save it again"
        return explain_checkpoint(path) or (
            f"{path} holds the weights of a network and not how it is built; write a function that makes the network "
            "with them, and save a model folder with it once: segshrink.build_model('MODULE:FUNCTION', "
            "segshrink.ClassMap.build([...])).save('FOLDER')"
        )
    return None
