from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segshrink.compression.quantization.mixed_precision import Attempts
from segshrink.compression.quantization.onnx_int8 import OnnxQuantizer
from segshrink.compression.quantization.scoring import Judge
from segshrink.compression.quantization.sensitivity import counts_to_try, rank_by_noise
from segshrink.config import Recipe
from segshrink.data import open_dataset
from segshrink.prediction import OnnxBackend

Spoiled = tuple[bytes, tuple[str, str]]


def silent(done: int, total: int, text: str) -> None:
    pass


def test_the_layers_around_a_bad_tensor_come_first(
    spoiled: Spoiled, onnx_file: Path, tiles: Sequence[NDArray[np.uint8]]
) -> None:
    model, layers = spoiled
    quantizer = OnnxQuantizer(model, tiles)
    assert quantizer.noise() > 20 * OnnxQuantizer(onnx_file.read_bytes(), tiles).noise()
    ranking = rank_by_noise(quantizer)
    assert set(ranking[:2]) == set(layers)
    assert quantizer.noise([name for name in quantizer.nodes if name not in layers]) < 0.05 * quantizer.noise()


def test_bad_layers_stay_float_until_the_drop_is_small(
    spoiled: Spoiled, recipe: Recipe, tiles: Sequence[NDArray[np.uint8]], tmp_path: Path
) -> None:
    model, layers = spoiled
    source = tmp_path / "spoiled.onnx"
    source.write_bytes(model)
    scratch = tmp_path / "predictions"
    scratch.mkdir()
    judge = Judge(open_dataset(recipe.data), scratch)
    reference = judge.score(OnnxBackend(source))
    assert reference.agreement == 1

    def attempts(name: str, max_drop: float) -> Attempts:
        return Attempts(
            source,
            tiles,
            tmp_path / name,
            judge,
            reference=reference.mean_iou,
            max_drop=max_drop,
            progress=silent,
        )

    careless = attempts("careless", 100).best("onnxruntime")
    assert careless.float_layers == ()
    assert careless.drop > 2
    careful = attempts("careful", 1).best("onnxruntime")
    assert set(careful.float_layers) == set(layers)
    assert careful.drop <= 1
    assert careful.score.agreement > 0.95
    assert careful.path.stat().st_size > careless.path.stat().st_size


@pytest.mark.parametrize(("nodes", "counts"), [(1, []), (2, [1]), (9, [1, 2, 4]), (16, [1, 2, 4, 8])])
def test_a_few_more_layers_each_time(nodes: int, counts: list[int]) -> None:
    assert list(counts_to_try(nodes)) == counts
