"""Claim: an int8 file decides as its fp32 file does, whatever processor runs it.

    python benchmarks/int8_processors.py \
        --processor "Haswell, emulated=qemu-x86_64-static -cpu Haswell .venv/bin/python" \
        --processor "Cortex-A72, emulated=qemu-aarch64-static -cpu cortex-a72 -L ROOT ROOT/usr/bin/python3.11"

Processors without VNNI multiply unsigned with signed bytes and add the products by twos in 16 bits, which two products
of 255 and 127 overflow. Networks of several families and widths, trained for a moment on synthetic aerial scenes, are
quantized as ``segshrink quantize`` does, in 7 bits of the weights. Every file then runs on this processor and by every
command that is given: a Python of any processor that has NumPy and ONNX Runtime (and OpenVINO, where it should run its
files). Counted are the pixels of validation scenes that get the class that the fp32 file gives them here.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

RESULTS = Path(__file__).resolve().parent / "results"
SEED = 0
STEPS, BATCH, CROP, SCENE = 30, 4, 64, 96
NETWORKS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("unet", {"width": 8, "depth": 3}),
    ("mobile", {"width": 0.35, "blocks": 9}),
    ("separable-unet", {"width": 0.125}),
    ("mobile", {"width": 0.5}),
    ("unet", {"width": 16, "depth": 3}),
    ("separable-unet", {"width": 0.375}),
    ("mobile", {}),
    ("smp:Unet/resnet18", {"decoder_channels": [64, 32, 16, 16, 8]}),
    ("smp:FPN/mobilenet_v2", {}),
    ("smp:DeepLabV3Plus/mobilenet_v2", {}),
    ("smp:Linknet/resnet18", {}),
    ("torchvision:lraspp_mobilenet_v3_large", {}),
)


def make_files(folder: Path, networks: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Write every network's files into a folder of its own, and the images; returns the networks' names."""
    import torch

    from segshrink import Normalization
    from segshrink.classes import ClassMap
    from segshrink.compression.quantization.onnx_int8 import OnnxQuantizer
    from segshrink.compression.quantization.openvino_int8 import write_openvino_int8
    from segshrink.data import CLASSES, generate_scene
    from segshrink.export import export_onnx
    from segshrink.models import build_model

    scenes = [generate_scene(SEED, "train", number=number, size=128) for number in range(4)]
    judged = [generate_scene(SEED, "val", number=number, size=SCENE).image for number in range(3)]
    np.save(folder / "images.npy", np.stack(judged).transpose(0, 3, 1, 2))
    tiles = [scene.image.transpose(2, 0, 1) for scene in scenes]
    classes = ClassMap.build([(name, color, None) for name, color in CLASSES])
    names: list[str] = []
    for identity, options in networks:
        torch.manual_seed(SEED)
        name = " ".join([identity, *(f"{key}={value}" for key, value in options.items())])
        model = build_model(identity, classes, options=dict(options), normalization=Normalization.named("imagenet", 3))
        print(name, f"loss {train(model, scenes):.3f}", flush=True)
        own = folder / str(len(names))
        own.mkdir()
        content = export_onnx(model, own / "fp32.onnx").read_bytes()
        quantizer = OnnxQuantizer(content, tiles)
        (own / "int8.onnx").write_bytes(quantizer.serialized())
        write_openvino_int8(quantizer.model, own / "int8.xml", tiles, nodes=quantizer.nodes)
        names.append(name)
    return names


def train(model: Any, scenes: Sequence[Any]) -> float:
    """Train a model for a moment; returns the last steps' mean loss."""
    import torch

    random = np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    model.train()
    for _ in range(STEPS):
        images, targets = [], []
        for number in random.integers(len(scenes), size=BATCH):
            row, col = random.integers(scenes[number].image.shape[0] - CROP, size=2)
            window = (slice(row, row + CROP), slice(col, col + CROP))
            images.append(scenes[number].image[window].transpose(2, 0, 1))
            targets.append(scenes[number].truth[window].astype(np.int64))
        logits = model(torch.from_numpy(np.stack(images)))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(np.stack(targets)), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return float(np.mean(losses[-10:]))


def run(folder: Path) -> dict[str, Any]:
    """Classify the images with every file, in a Python that needs NumPy and a runtime alone."""
    images = np.load(folder / "images.npy")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    versions = {"onnxruntime": onnxruntime.__version__}
    with_openvino = find_spec("openvino") is not None
    if with_openvino:
        import openvino

        versions["openvino"] = openvino.__version__
    for own in sorted(path for path in folder.iterdir() if path.is_dir()):
        found = {}
        for name in ("fp32.onnx", "int8.onnx"):
            session = onnxruntime.InferenceSession(str(own / name), options, providers=["CPUExecutionProvider"])
            found[name] = session.run(["logits"], {"images": images})[0].argmax(axis=1).astype(np.uint8)
        if with_openvino:
            model = openvino.Core().read_model(own / "int8.xml")
            model.reshape(list(images.shape))
            compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            found["int8.xml"] = compiled([images])["logits"].argmax(axis=1).astype(np.uint8)
        np.savez(own / "classes.npz", **found)
    return {"architecture": platform.machine(), "versions": versions}


def measure(folder: Path, processors: Mapping[str, Sequence[str]], *, first: int) -> dict[str, Any]:
    """Make all files and run them on every processor; returns shares of equal pixels."""
    names = make_files(folder, NETWORKS[:first])
    rows: dict[str, dict[str, dict[str, float]]] = {name: {} for name in names}
    about = {}
    reference: dict[str, Any] = {}
    for processor, command in processors.items():
        done = subprocess.run([*command, __file__, "--run", str(folder)], stdout=subprocess.PIPE, check=True)
        about[processor] = json.loads(done.stdout.splitlines()[-1])
        for number, name in enumerate(names):
            with np.load(folder / str(number) / "classes.npz") as found:
                expected = reference.setdefault(name, found["fp32.onnx"])
                shares = {file: float((found[file] == expected).mean()) for file in found.files}
            rows[name][processor] = shares
            print(processor, name, shares, flush=True)
    return {"processors": about, "rows": rows}


def as_markdown(record: Mapping[str, Any]) -> str:
    """Return the table that goes beside the numbers."""
    files = [
        (processor, file)
        for processor in record["processors"]
        for file in ("int8.onnx", "int8.xml")
        if file in next(iter(record["rows"].values()))[processor]
    ]
    titles = {"int8.onnx": "ONNX Runtime", "int8.xml": "OpenVINO"}
    lowest = min(row[processor][file] for row in record["rows"].values() for processor, file in files)
    lines = [
        "# int8 files on several processors",
        "",
        f"Share of pixels that int8 files give the class that fp32 gives them on {record['machine']['cpu']}, "
        f"{record['created'][:10]}, seed {record['seed']}; the lowest is {100 * lowest:.2f} %. "
        "`python benchmarks/int8_processors.py` measures it again and says what is what. [int8_agreement.md]"
        "(int8_agreement.md) says which pixels these are and what was tried for more of them.",
        "",
        "Versions: "
        + "; ".join(
            f"{processor} ({one['architecture']}): {', '.join(' '.join(pair) for pair in one['versions'].items())}"
            for processor, one in record["processors"].items()
        )
        + ".",
        "",
        "| network | " + " | ".join(f"{processor}, {titles[file]}" for processor, file in files) + " |",
        "|---|" + "---:|" * len(files),
    ]
    for name, row in record["rows"].items():
        shares = [f"{100 * row[processor][file]:.2f} %" for processor, file in files]
        lines.append(f"| {name} | {' | '.join(shares)} |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> None:
    """Measure and write, or run the files on one processor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processor", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--first", type=int, default=len(NETWORKS), help="networks, the quickest first")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.run:
        print(json.dumps(run(given.run)))
        return
    from segshrink.files import write_json, write_text
    from segshrink.machine import describe_machine

    processors = {"here": [sys.executable]}
    for entry in given.processor:
        name, _, command = entry.partition("=")
        processors[name] = shlex.split(command)
    with tempfile.TemporaryDirectory() as work:
        found = measure(Path(work), processors, first=given.first)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"created": created, "machine": describe_machine(threads=1), "seed": SEED, **found}
    write_json(given.out / "int8_processors.json", record)
    write_text(given.out / "int8_processors.md", as_markdown(record))
    print(as_markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
