"""What an untrained candidate's files are measured for holds for the trained one's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import torch

from segshrink.classes import ClassMap
from segshrink.compression.search.candidate_files import export_untrained, measure_files
from segshrink.compression.search.candidates import CandidateFile
from segshrink.compression.search.search import Settings
from segshrink.models import SegmentationModel, build_model

CLASSES = ClassMap.build([("land", None, None), ("water", None, None)])


def candidate(*, trained: bool) -> SegmentationModel:
    torch.manual_seed(0)
    model = build_model("mobile", CLASSES, options={"width": 0.1, "blocks": 7}).eval()
    if trained:
        for name, value in model.network.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                value.normal_(std=0.1)
    return model


def test_untrained_files_compute_as_much_as_trained_ones(tmp_path: Path) -> None:
    found = []
    for trained in (False, True):
        (tmp_path / str(trained)).mkdir()
        export_untrained(candidate(trained=trained), tmp_path / str(trained), ("onnxruntime",))
        files = [onnx.load(tmp_path / str(trained) / f"{precision}.onnx") for precision in ("fp32", "int8")]
        found.append([Counter((node.op_type, len(node.input)) for node in file.graph.node) for file in files])
    assert found[0] == found[1]
    assert all(counts["Conv", 3] > 20 for counts in found[0])


def test_a_runtime_that_dies_costs_its_own_file_only(tmp_path: Path, stand_in: Callable[[str, str], None]) -> None:
    stand_in("onnxruntime", "aborts")  # with 8 bits alone
    runtimes = ("onnxruntime", "openvino")
    files, refused = export_untrained(candidate(trained=False), tmp_path, runtimes)
    assert len(refused) == 1
    assert "SIGABRT" in refused[0]
    assert [(file.runtime, Path(file.path or "").name) for file in files] == [
        ("onnxruntime", "fp32.onnx"),
        ("openvino", "fp32.onnx"),
        ("openvino", "int8.xml"),
    ]
    stand_in("openvino", "aborts")
    measured = measure_files(files, Settings(size=64, threads=1), quick=True)
    assert isinstance(measured[0], CandidateFile)
    assert all(isinstance(one, str) and "SIGABRT" in one for one in measured[1:])
