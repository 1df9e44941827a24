"""Claim: where int8 gives a pixel another class, fp32 was mostly undecided; no single lever brings 99 % agreement.

    python benchmarks/int8_agreement.py --networks 0,2,6    # places in int8_processors.NETWORKS; half an hour

Networks of ``int8_processors.py`` are trained on synthetic scenes, as shortly as there and ten times as long. The
margin of a pixel is the difference between its two largest probabilities in fp32; counted is how many pixels lie in
each bin of margins, and to how many of them int8 gives another class. Then everything is tried, one thing at a time,
that is known to bring int8 nearer to fp32: other calibration, corrected biases, equalized channels, layers in float,
quantization-aware distillation. Networks that were measured before stay in the results.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn import functional as F

import int8_processors
from segshrink import Normalization
from segshrink.classes import ClassMap
from segshrink.compression.quantization.fake_quantization import fake_quantized, observing
from segshrink.compression.quantization.mixed_precision import rank_by_error
from segshrink.compression.quantization.onnx_int8 import (
    WEIGHTED,
    OnnxQuantizer,
    Ranges,
    as_input,
    observe_ranges,
    open_session,
)
from segshrink.compression.quantization.openvino_int8 import write_openvino_int8
from segshrink.compression.quantization.qat import FrozenBatchNorm
from segshrink.data import CLASSES, generate_scene
from segshrink.export.onnx import to_onnx
from segshrink.files import read_json, scratch_folder, write_json, write_text
from segshrink.machine import describe_machine
from segshrink.models import SegmentationModel, build_model
from segshrink.prediction import open_backend

RESULTS = Path(__file__).resolve().parent / "results"
SEED, SHORT, LONG = 0, int8_processors.STEPS, 10 * int8_processors.STEPS
SCENES, MORE_SCENES, JUDGED = 4, 16, 6
MARGINS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
Tiles = Sequence[NDArray[Any]]


class Network:
    """A trained network, its quantizer, and what fp32 says about the judged images (N, bands, H, W)."""

    def __init__(self, number: int, steps: int, scenes: Sequence[Any], images: NDArray[np.uint8]) -> None:
        identity, options = int8_processors.NETWORKS[number]
        classes = ClassMap.build([(name, color, None) for name, color in CLASSES])
        torch.manual_seed(SEED)
        normalization = Normalization.named("imagenet", 3)
        self.model = build_model(identity, classes, options=dict(options), normalization=normalization)
        int8_processors.STEPS = steps
        int8_processors.train(self.model, scenes)
        self.name = " ".join([identity, *(f"{key}={value}" for key, value in options.items())])
        self.tiles = [scene.image.transpose(2, 0, 1) for scene in scenes]
        self.images = images
        self.quantizer = OnnxQuantizer(to_onnx(self.model).SerializeToString(), self.tiles)
        logits = self.logits(self.quantizer.model)
        self.classes = logits.argmax(axis=1)
        self.probabilities = torch.from_numpy(logits).softmax(1).numpy()

    def logits(self, model: onnx.ModelProto) -> NDArray[np.float32]:
        """Return logits (N, C, H, W) of the judged images in ONNX Runtime."""
        session = open_session(model)
        return np.concatenate([session.run(["logits"], as_input(session, image))[0] for image in self.images])

    def agreement(self, model: onnx.ModelProto) -> float:
        """Return the share of pixels that get the class that fp32 gives them."""
        return float((self.logits(model).argmax(axis=1) == self.classes).mean())


def margins(network: Network) -> dict[str, Any]:
    """Return the share of pixels, and of pixels that int8 decides otherwise, by fp32's margin."""
    ordered = np.sort(network.probabilities, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    differs = network.logits(network.quantizer.quantize()).argmax(axis=1) != network.classes
    pixels = np.histogram(margin, MARGINS)[0]
    return {
        "median": float(np.median(margin)),
        "agreement": float(1 - differs.mean()),
        "pixels": (pixels / margin.size).tolist(),
        "differing": (np.histogram(margin[differs], MARGINS)[0] / np.maximum(pixels, 1)).tolist(),
    }


def levers(network: Network, more: Tiles) -> Iterator[tuple[str, float]]:
    """Yield the name of each lever and the agreement with it."""
    quantizer, tiles = network.quantizer, network.tiles
    model, nodes = quantizer.model, quantizer.nodes
    extremes, mean = observe_ranges(model, nodes, tiles)
    yield "as `quantize` does", network.agreement(quantizer.quantize())
    yield "ranges: extremes of all tiles", network.agreement(quantizer.quantize(ranges=extremes))
    yield "ranges: mean of the tiles' extremes", network.agreement(quantizer.quantize(ranges=mean))
    yield (
        f"{len(more)} tiles instead of {len(tiles)}",
        network.agreement(OnnxQuantizer(model.SerializeToString(), more).quantize()),
    )
    yield "ranges of least squared error", network.agreement(quantizer.quantize(ranges=squared_error_ranges(network)))
    yield "corrected biases", network.agreement(requantized(corrected_biases(network), tiles))
    yield "equalized channels", network.agreement(requantized(equalized(network), tiles))
    yield from openvino_levers(network)
    operators = {node.name: node.op_type for node in model.graph.node}
    layers = [name for name in nodes if operators[name] in WEIGHTED]
    ends = (layers[0], layers[-1])
    yield (
        "first and last layer in float",
        network.agreement(quantizer.quantize([name for name in nodes if name not in ends])),
    )
    ranking = rank_by_error(quantizer)
    for share in (0.1, 0.25, 0.5):
        floats = set(ranking[: round(share * len(ranking))])
        yield (
            f"{share:.0%} of the layers in float",
            network.agreement(quantizer.quantize([name for name in nodes if name not in floats])),
        )
    for steps in (SHORT, LONG):
        student = distilled(network, more, steps)
        yield (
            f"distilled in int8, {steps} steps",
            network.agreement(OnnxQuantizer(to_onnx(student).SerializeToString(), tiles).quantize()),
        )


def values_of(model: onnx.ModelProto, names: Sequence[str], tiles: Tiles) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield the named float values inside a model for each tile; nothing where no value is named."""
    if not names:
        return
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    outputs = {output.name for output in model.graph.output}
    for name in names:
        if name not in outputs:
            watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = open_session(watched)
    for tile in tiles:
        yield dict(zip(names, session.run(list(names), as_input(session, tile)), strict=True))


def squared_error_ranges(network: Network) -> Ranges:
    """Return for each tensor the share of its extremes that rounds a sample of its values with the least error."""
    extremes, _ = observe_ranges(network.quantizer.model, network.quantizer.nodes, network.tiles)
    random = np.random.default_rng(SEED)
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in extremes}
    for values in values_of(network.quantizer.model, list(extremes), network.tiles):
        for name, value in values.items():
            samples[name].append(random.choice(value.ravel(), 10_000))

    def error(values: NDArray[np.float32], low: float, high: float) -> float:
        scale = max((high - low) / 255, 1e-12)
        zero = round(-low / scale)
        rounded = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
        return float(np.square(rounded - values).mean())

    ranges = {}
    for name, (least, largest) in extremes.items():
        low, high, sample = min(least, 0), max(largest, 0), np.concatenate(samples[name])
        best = min(np.linspace(0.4, 1, 7), key=lambda share: error(sample, share * low, share * high))
        ranges[name] = (np.float32(best * low), np.float32(best * high))
    return ranges


def weighted_layers(network: Network) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto], list[onnx.NodeProto]]:
    """Return a copy of the float model, its constants by name, and its convolutions with weights and biases."""
    model = onnx.ModelProto()
    model.CopyFrom(network.quantizer.model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and len(node.input) == 3 and node.name in network.quantizer.nodes
    ]
    return model, constants, layers


def put(constants: Mapping[str, onnx.TensorProto], name: str, value: NDArray[Any]) -> None:
    """Replace a constant."""
    constants[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))


def corrected_biases(network: Network) -> onnx.ModelProto:
    """Return the model with biases that make up for the mean error of rounded weights (arXiv:1906.04721)."""
    model, constants, layers = weighted_layers(network)
    names = list(dict.fromkeys(layer.input[0] for layer in layers))
    sums = dict.fromkeys(names, np.zeros(1, np.float32))
    for values in values_of(model, names, network.tiles):
        sums = {name: sums[name] + values[name].mean(axis=(0, 2, 3)) / len(network.tiles) for name in names}
    for layer in layers:
        weight, bias = (np.array(numpy_helper.to_array(constants[name])) for name in layer.input[1:3])
        scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 64, 1e-12)
        error = (np.rint(weight / scale) * scale - weight).sum(axis=(2, 3))  # (outputs, inputs of a group)
        inputs = sums[layer.input[0]].reshape(-1, error.shape[1])  # (groups, inputs of a group)
        each = np.repeat(inputs, len(error) // len(inputs), axis=0)
        put(constants, layer.input[2], bias - (error * each).sum(axis=1))
    return model


def equalized(network: Network) -> onnx.ModelProto:
    """Return the same computation with like ranges of all channels between two convolutions and a ReLU, if any."""
    model, constants, layers = weighted_layers(network)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    between: dict[str, tuple[onnx.NodeProto, onnx.NodeProto]] = {}
    for layer in layers:
        value = layer.output[0]
        while len(users.get(value, [])) == 1 and users[value][0].op_type in ("Relu", "LeakyRelu"):
            value = users[value][0].output[0]
        after = users.get(value, [])
        if len(after) == 1 and after[0].op_type == "Conv" and after[0].input[0] == value:
            between[value] = (layer, after[0])
    peaks = dict.fromkeys(between, np.zeros(1, np.float32))
    for values in values_of(model, list(between), network.tiles):
        peaks = {name: np.maximum(peaks[name], np.abs(values[name]).max(axis=(0, 2, 3))) for name in between}
    for name, (first, second) in between.items():
        scale = np.maximum(peaks[name] / max(float(peaks[name].max()), 1e-12), 0.01)
        weight, bias, following = (
            numpy_helper.to_array(constants[part]) for part in (first.input[1], first.input[2], second.input[1])
        )
        if following.shape[1] == 1:  # depthwise
            factor = np.repeat(scale, len(following) // len(scale)).reshape(-1, 1, 1, 1)
        elif following.shape[1] == len(scale):
            factor = scale.reshape(1, -1, 1, 1)
        else:
            continue
        put(constants, first.input[1], weight / scale.reshape(-1, 1, 1, 1))
        put(constants, first.input[2], bias / scale)
        put(constants, second.input[1], following * factor)
    return model


def requantized(model: onnx.ModelProto, tiles: Tiles) -> onnx.ModelProto:
    """Quantize a changed float model as ``quantize`` does."""
    return OnnxQuantizer(model.SerializeToString(), tiles).quantize()


def openvino_levers(network: Network) -> Iterator[tuple[str, float]]:
    """Yield the agreement of OpenVINO's file, whose biases NNCF corrects."""
    quantizer = network.quantizer
    with scratch_folder() as scratch:
        path = scratch / "int8.xml"
        write_openvino_int8(quantizer.model, path, network.tiles, nodes=quantizer.nodes)
        backend = open_backend(path, runtime="openvino", threads=1)
        classes = np.concatenate([backend.classify(image.transpose(1, 2, 0)[None]) for image in network.images])
    yield "OpenVINO: NNCF with its bias correction", float((classes == network.classes).mean())


def distilled(network: Network, tiles: Tiles, steps: int) -> SegmentationModel:
    """Train a copy with simulated int8 against the float network's own logits."""
    teacher, student = copy.deepcopy(network.model).eval(), copy.deepcopy(network.model)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    random = np.random.default_rng(SEED)

    def batch() -> torch.Tensor:
        size, corner = int8_processors.CROP, tiles[0].shape[1] - int8_processors.CROP
        places = [(random.integers(len(tiles)), *random.integers(corner, size=2)) for _ in range(int8_processors.BATCH)]
        return torch.from_numpy(np.stack([tiles[n][:, row : row + size, col : col + size] for n, row, col in places]))

    with fake_quantized(student.network) as inputs:
        student.eval()
        with observing(inputs), torch.no_grad():
            for _ in range(8):
                student(batch())
        student.train()
        FrozenBatchNorm().on_train_epoch_start(None, student)  # type: ignore[arg-type]
        for _ in range(steps):
            images = batch()
            with torch.no_grad():
                target = teacher(images).log_softmax(1)
            loss = F.kl_div(student(images).log_softmax(1), target, log_target=True, reduction="none").sum(1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return student.eval()


def as_markdown(record: Mapping[str, Any]) -> str:
    """Return the page that goes beside the numbers."""
    bins = [f"{low:g}–{high:g}" for low, high in pairwise(MARGINS)]
    lines = [
        "# Where int8 decides otherwise than fp32, and what helps",
        "",
        f"{record['machine']['cpu']}, {record['created'][:10]}, seed {SEED}, {JUDGED} scenes of "
        f"{int8_processors.SCENE} × {int8_processors.SCENE} pixels. `python benchmarks/int8_agreement.py` measures it "
        "again and says what is what.",
        "",
        "Share of pixels by fp32's margin between the two likeliest classes, and in brackets how many of these get "
        "another class from int8 in ONNX Runtime:",
        "",
        f"| network, steps of training | agreement | median margin | {' | '.join(bins)} |",
        "|---|---:|---:|" + "---:|" * len(bins),
    ]
    for name, by_steps in record["margins"].items():
        for steps, row in by_steps.items():
            cells = [f"{p:.1%} ({d:.1%})" for p, d in zip(row["pixels"], row["differing"], strict=True)]
            lines.append(f"| {name}, {steps} | {row['agreement']:.2%} | {row['median']:.3f} | {' | '.join(cells)} |")
    columns = [(name, steps) for name, by_steps in record["levers"].items() for steps in by_steps]
    lines += [
        "",
        "Agreement with each lever alone:",
        "",
        f"| lever | {' | '.join(f'{name}, {steps}' for name, steps in columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for lever in record["levers"][columns[0][0]][columns[0][1]]:
        measured = [record["levers"][name][steps].get(lever) for name, steps in columns]
        cells = ["" if agreement is None else f"{agreement:.2%}" for agreement in measured]
        lines.append(f"| {lever} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="0,2,6")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenes = [generate_scene(SEED, "train", number=number, size=128) for number in range(MORE_SCENES)]
    more = [scene.image.transpose(2, 0, 1) for scene in scenes]
    judged = [generate_scene(SEED, "val", number=number, size=int8_processors.SCENE).image for number in range(JUDGED)]
    images = np.stack(judged).transpose(0, 3, 1, 2)
    store = options.out / "int8_agreement.json"
    record: dict[str, Any] = read_json(store) if store.exists() else {"margins": {}, "levers": {}}
    record["machine"] = describe_machine(threads=1)
    for number in map(int, options.networks.split(",")):
        for steps in (SHORT, LONG):
            network = Network(number, steps, scenes[:SCENES], images)
            values = record["levers"].setdefault(network.name, {}).setdefault(str(steps), {})
            record["margins"].setdefault(network.name, {})[str(steps)] = margins(network)
            for lever, agreement in levers(network, more):
                values[lever] = agreement
                print(network.name, steps, lever, f"{agreement:.2%}", flush=True)
            record["created"] = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(store, record)
            write_text(store.with_suffix(".md"), as_markdown(record))


if __name__ == "__main__":
    main()
