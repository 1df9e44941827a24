"""Pruning and quantization: libraries' own ways beside those of ``segshrink``, on the networks of ``compress.py``.

    python benchmarks/libraries.py --out /tmp/libraries     # half an hour, one thread; finished trainings are kept

The networks train on the demo's scenes. Each then loses half of its multiply-adds and learns on for a quarter of the
steps, once by ``segshrink.prune``, once by Torch-Pruning's pruner with its magnitudes and with its Taylor scores; and
each becomes an 8-bit file by ``segshrink.quantize``, by ONNX Runtime's ``quantize_static`` on the same tiles, and by
NNCF's quantization with accuracy control. Files are timed in turns. A library replaces what is here if it comes within
0.1 points of mIoU, 2 % of size and 5 % of latency on all networks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
import torch
import torch_pruning
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from processor_results import write_results
from segshrink import (
    Confusion,
    Dataset,
    Job,
    Recipe,
    SceneStore,
    SegmentationModel,
    __version__,
    evaluate,
    load_dataset,
    load_model,
    load_recipe,
    measure,
    open_dataset,
)
from segshrink.allocator import restart_with_tuned_allocator
from segshrink.compression.pruning.prune import prune
from segshrink.compression.pruning.smaller_copy import finished, thawed_copy
from segshrink.compression.quantization import quantize
from segshrink.compression.quantization.onnx_int8 import LOGITS, as_input, open_session, optimized, quantizable_nodes
from segshrink.data import calibration_tiles, write_scenes
from segshrink.data.calibration import example_pixels
from segshrink.export.openvino import save_openvino, to_openvino
from segshrink.machine import describe_machine, package_versions
from segshrink.model_file import ModelFile
from segshrink.prediction.exported import METADATA_KEY
from segshrink.profiling.parameters_and_macs import count_macs
from segshrink.training import train

NETWORKS: dict[str, dict[str, Any]] = {
    "mobile": {},
    "mobile-decoder64x48x32": {"decoder_channels": [64, 48, 32]},
    "mobile-decoder64x48x32-blocks11": {"decoder_channels": [64, 48, 32], "blocks": 11},
}
SIDE, TILES, MAX_DROP = 256, 64, 1.0
EPOCHS, EPOCHS_AFTER = 12, 3
STEPS = 100
Pruner = Callable[[SegmentationModel, Dataset], SegmentationModel]
# Writes a file in 8 bits from one in 32, with calibration tiles.
Quantizer = Callable[[Path, Path, Sequence[NDArray[Any]], Dataset], None]


def macs(model: SegmentationModel) -> float:
    """Return the multiply-adds for one image."""
    return float(count_macs(model, size=SIDE))


def by_segshrink(model: SegmentationModel, dataset: Dataset) -> SegmentationModel:
    """Remove the channels that ``segshrink.prune`` removes."""
    return prune(model, macs=macs(model) / 2, size=SIDE, images=torch.from_numpy(example_pixels(dataset)))


def by_torch_pruning(importance: Any, *, gradients: bool) -> Pruner:
    """Return what removes channels by Torch-Pruning's own pruner until half of the multiply-adds are left."""

    def pruned(model: SegmentationModel, dataset: Dataset) -> SegmentationModel:
        images = torch.from_numpy(example_pixels(dataset)).float()
        smaller, target = thawed_copy(model), macs(model) / 2
        layers = [layer for layer in smaller.network.modules() if isinstance(layer, torch.nn.Conv2d)]
        kept = [layers[0], *(layer for layer in layers if layer.out_channels == len(model.description.classes))]
        pruner = torch_pruning.pruner.BasePruner(
            smaller.network,
            images[:1] * 0,
            importance=importance,
            global_pruning=True,
            pruning_ratio=0.9,
            max_pruning_ratio=0.9,
            iterative_steps=STEPS,
            ignored_layers=kept,
            round_to=8,
        )
        for _ in range(STEPS):
            if macs(smaller) <= target:
                break
            if gradients:
                smaller.zero_grad()
                wanted = model(images).argmax(dim=1).detach()
                torch.autograd.backward(torch.nn.functional.cross_entropy(smaller(images), wanted))
            pruner.step()
        return finished(smaller, model, images)

    return pruned


PRUNERS: dict[str, Pruner] = {
    "segshrink.prune": by_segshrink,
    "Torch-Pruning, magnitude": by_torch_pruning(torch_pruning.importance.GroupMagnitudeImportance(), gradients=False),
    "Torch-Pruning, Taylor": by_torch_pruning(torch_pruning.importance.GroupTaylorImportance(), gradients=True),
}


def recipe_of(data: Path, options: dict[str, Any], *, epochs: int, start: Path | None = None) -> Recipe:
    """Return the demo's recipe for a teacher that is one of the networks, or goes on from a model."""
    model = f"{{id: mobile, options: {options}}}" if start is None else f"{{start: {start}}}"
    overrides = [f"teacher.model={model}", f"teacher.training.epochs={epochs}"]
    with resources.as_file(resources.files("segshrink.workflows") / "demo.yaml") as path:
        return load_recipe(path, overrides, data)


def pruned_rows(name: str, options: dict[str, Any], out: Path, data: Path) -> list[dict[str, Any]]:
    """Prune a trained network in every way; returns mIoU before and after it has learned on."""
    dataset, rows = open_dataset(load_dataset(data)), []
    model = load_model(out / name)
    for pruner, prune_by in PRUNERS.items():
        folder = out / f"{name}-{pruner.replace(', ', '-').replace('.', '-')}"
        began = time.process_time()
        smaller = prune_by(deepcopy(model), dataset)
        seconds = time.process_time() - began
        smaller.save(folder / "pruned")
        recipe = recipe_of(data, options, epochs=EPOCHS_AFTER, start=folder / "pruned")
        train(recipe, out=folder / "trained", role="teacher", dataset=dataset, resume=True)
        rows.append(
            {
                "network": name,
                "by": pruner,
                "macs": macs(smaller) / macs(model),
                "at_once": evaluate(smaller, dataset).scores.mean_iou,
                "learned_on": evaluate(folder / "trained", dataset).scores.mean_iou,
                "seconds": seconds,
            }
        )
    return rows


class Tiles(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    """Calibration tiles as ``quantize_static`` takes them."""

    def __init__(self, source: Path, tiles: Sequence[NDArray[Any]]) -> None:
        session = open_session(source.read_bytes())
        self.inputs = iter([as_input(session, tile) for tile in tiles])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next tile, or None."""
        return next(self.inputs, None)


def by_quantize_static(source: Path, path: Path, tiles: Sequence[NDArray[Any]], dataset: Dataset) -> None:
    """Write an 8-bit ONNX file as ONNX Runtime's documentation says, for processors without VNNI as well.

    Left to choose the nodes itself, also after its own pre-processing, it writes files that fail: it takes the sizes
    that are computed on the way for feature maps. So it gets the folded graph and the nodes that ours quantizes.
    """
    folded = optimized(source.read_bytes())
    prepared = path.with_name(f"folded-{path.name}")
    prepared.write_bytes(folded.SerializeToString())
    quantize_static(
        prepared,
        path,
        Tiles(prepared, tiles),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=quantizable_nodes(folded),
    )


def by_accuracy_control(source: Path, path: Path, tiles: Sequence[NDArray[Any]], dataset: Dataset) -> None:
    """Write an 8-bit OpenVINO file by NNCF's quantization with accuracy control."""
    model = to_openvino(onnx.load(source), name="the model")
    dtype = model.input(0).get_element_type().to_dtype()
    store = SceneStore(dataset.val, dataset.classes)
    scenes = [np.asarray(store.image(number)).transpose(2, 0, 1) for number in range(len(store))]

    def judge(compiled: Any, batches: Iterable[Any]) -> tuple[float, None]:
        confusion = Confusion(len(dataset.classes))
        for number, batch in enumerate(batches):
            confusion.update(compiled(batch)[LOGITS][0].argmax(axis=0).astype(np.uint8), store.mask(number))
        return float(confusion.scores().mean_iou), None

    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset([tile[np.newaxis].astype(dtype) for tile in tiles]),
        validation_dataset=nncf.Dataset([scene[np.newaxis].astype(dtype) for scene in scenes]),
        validation_fn=judge,
        max_drop=MAX_DROP / 100,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(tiles),
    )
    (described,) = (entry.value for entry in onnx.load(source).metadata_props if entry.key == METADATA_KEY)
    save_openvino(quantized, path, description=described)


# Name, file, runtime, and what writes it; None: ``segshrink.quantize`` did.
QUANTIZERS: tuple[tuple[str, str, str, Quantizer | None], ...] = (
    ("segshrink.quantize", "int8.onnx", "onnxruntime", None),
    ("quantize_static", "static.onnx", "onnxruntime", by_quantize_static),
    ("segshrink.quantize", "int8.xml", "openvino", None),
    ("NNCF, accuracy control", "controlled.xml", "openvino", by_accuracy_control),
)


def quantized_rows(name: str, out: Path, data: Path) -> list[dict[str, Any]]:
    """Quantize a trained network in every way; returns mIoU, size and latency of the files."""
    dataset, folder = open_dataset(load_dataset(data)), out / f"{name}-int8"
    began = time.process_time()
    ours = quantize(load_model(out / name), dataset, out=folder, max_drop=MAX_DROP, images=TILES)
    spent = time.process_time() - began
    tiles = calibration_tiles(dataset, count=TILES)
    written = out / f"{name}-libraries"
    written.mkdir(exist_ok=True)
    rows, jobs = [], []
    for by, file, runtime, write in QUANTIZERS:
        path = folder / file if write is None else written / file
        began = time.process_time()
        if write is not None:
            write(folder / "fp32.onnx", path, tiles, dataset)
        jobs.append(Job(path, runtime, size=512, threads=1))
        rows.append(
            {
                "network": name,
                "by": f"{by}, {runtime}",
                "fp32": ours.row("onnxruntime", "fp32").mean_iou,
                "mean_iou": evaluate(path, dataset, runtime=runtime).scores.mean_iou,
                "bytes": ModelFile(path).size_bytes,
                "seconds": time.process_time() - began if write is not None else spent / 2,
            }
        )
    for row, measured in zip(rows, measure(jobs, runs=30, rounds=5), strict=True):
        row["latency_ms"] = None if measured.latency_ms is None else measured.latency_ms["median"]
    return rows


def to_markdown(results: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine, versions = results["machine"], results["versions"]
    named = ", ".join(f"{package} {version}" for package, version in versions.items())
    lines = [
        "# Pruning and quantization: libraries' own ways",
        "",
        f"Written by `benchmarks/libraries.py`, which explains it, {results['created']}, segshrink "
        f"{results['segshrink']}, {machine['cpu']}, Python {machine['python']}, {named}, one thread, seed 0. mIoU on "
        "ten synthetic scenes.",
        "",
        "| network | half of its multiply-adds by | left | mIoU at once | after learning on | processor seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {row['network']} | {row['by']} | {row['macs']:.3f} | {row['at_once']:.4f} | {row['learned_on']:.4f} | "
            f"{row['seconds']:.1f} |"
            for row in results["pruned"]
        ),
        "",
        "| network | 8 bits by | mIoU in 32 bits | in 8 | bytes | ms for 512 × 512 | processor seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {row['network']} | {row['by']} | {row['fp32']:.4f} | {row['mean_iou']:.4f} | {row['bytes']:,} | "
            f"{row['latency_ms'] or float('nan'):.2f} | {row['seconds']:.0f} |"
            for row in results["quantized"]
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Train, prune, quantize, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for scenes, networks and files")
    given = parser.parse_args()
    torch.set_num_threads(1)
    out = given.out.resolve()
    data = write_scenes(out / "scenes", train=6, val=10, unlabeled=40, size=384, seed=0)
    pruned, quantized = [], []
    for name, options in NETWORKS.items():
        train(recipe_of(data, options, epochs=EPOCHS), out=out / name, role="teacher", resume=True)
        pruned += pruned_rows(name, options, out, data)
        quantized += quantized_rows(name, out, data)
    results: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "segshrink": __version__,
        "machine": describe_machine(threads=1),
        "versions": package_versions("torch-pruning", "onnxruntime", "openvino", "nncf"),
        "pruned": pruned,
        "quantized": quantized,
    }
    write_results("libraries", results, to_markdown)


if __name__ == "__main__":
    restart_with_tuned_allocator()
    main()
