"""What an untrained candidate's files are measured for holds for the trained one's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.compression.search.measuring import export_untrained
from segshrink.models import SegmentationModel, build_model


def candidate(*, trained: bool) -> SegmentationModel:
    classes = ClassMap.build([("land", None, None), ("water", None, None)])
    torch.manual_seed(0)
    model = build_model("mobile", classes, options={"width": 0.1, "blocks": 7}).eval()
    if trained:
        for name, value in model.network.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                value.normal_(std=0.1)
    return model


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_untrained_files_compute_as_much_as_trained_ones(tmp_path: Path, precision: str) -> None:
    found = []
    for trained in (False, True):
        (tmp_path / str(trained)).mkdir()
        export_untrained(candidate(trained=trained), tmp_path / str(trained), ("onnxruntime",))
        nodes = onnx.load(tmp_path / str(trained) / f"{precision}.onnx").graph.node
        found.append(Counter((node.op_type, len(node.input)) for node in nodes))
    assert found[0] == found[1]
    assert found[0]["Conv", 3] > 20
