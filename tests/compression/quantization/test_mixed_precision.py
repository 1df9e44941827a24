from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segshrink.compression.quantization.mixed_precision import MixedPrecision, rank_by_error
from segshrink.compression.quantization.onnx_int8 import OnnxQuantizer
from segshrink.compression.quantization.result import QuantizationRow
from segshrink.config import Recipe
from segshrink.data import open_dataset
from segshrink.evaluation import evaluate

Spoiled = tuple[bytes, tuple[str, str]]


def silent(done: int, total: int, text: str) -> None:
    pass


def test_the_layers_around_a_bad_tensor_come_first(
    spoiled: Spoiled, onnx_file: Path, tiles: Sequence[NDArray[np.uint8]]
) -> None:
    model, layers = spoiled
    quantizer = OnnxQuantizer(model, tiles)
    assert quantizer.error() > 20 * OnnxQuantizer(onnx_file.read_bytes(), tiles).error()
    ranking = rank_by_error(quantizer)
    assert set(ranking[:2]) == set(layers)
    assert quantizer.error([name for name in quantizer.nodes if name not in layers]) < 0.05 * quantizer.error()


def test_bad_layers_stay_float_until_the_drop_is_small(
    spoiled: Spoiled, recipe: Recipe, tiles: Sequence[NDArray[np.uint8]], tmp_path: Path
) -> None:
    model, layers = spoiled
    source = tmp_path / "spoiled.onnx"
    source.write_bytes(model)
    dataset = open_dataset(recipe.data)
    reference = evaluate(source, dataset, runtime="onnxruntime", out=tmp_path / "float32")

    def score(path: Path, runtime: str, float_layers: tuple[str, ...]) -> QuantizationRow:
        evaluation = evaluate(path, dataset, runtime=runtime, precision="auto", reference=tmp_path / "float32")
        assert evaluation.agreement is not None
        iou = evaluation.scores.mean_iou
        drop = 100 * (reference.scores.mean_iou - iou)
        size = path.stat().st_size
        return QuantizationRow(
            runtime, "int8", path, iou, drop, evaluation.agreement.accuracy, size, float_layers=float_layers
        )

    careless = MixedPrecision(source, tiles, tmp_path / "careless", score, 100, silent).best("onnxruntime")
    assert careless.float_layers == ()
    assert careless.drop > 2
    careful = MixedPrecision(source, tiles, tmp_path / "careful", score, 1, silent).best("onnxruntime")
    assert set(careful.float_layers) == set(layers)
    assert careful.drop <= 1
    assert careful.agreement > 0.95
    assert careful.bytes > careless.bytes
