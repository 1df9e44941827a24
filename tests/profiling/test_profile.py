from __future__ import annotations

import json

import numpy as np
import psutil
import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError
from segshrink.models import ModelDescription, Normalization, SegmentationModel, build_model, load_model
from segshrink.profiling import profile_model
from segshrink.profiling.profile import count_macs, measure_latency

CLASSES = ClassMap.build([("water", None, None), ("land", None, None), ("road", None, None)])
SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run") / "model"
    build_model("unet", CLASSES, options={"width": 32}).save(folder)
    return folder


@pytest.fixture(scope="module")
def profile(folder):
    # Memory of this process must not be taken for the model's.
    ballast = np.ones(300_000_000, np.uint8)
    profile = profile_model(folder.parent, size=SIZE, runs=5, threads=1)
    profile["resident_here_mb"] = psutil.Process().memory_info().rss / 1e6
    assert ballast[-1]
    return profile


def test_operations_and_parameters_are_those_counted_by_hand():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
        torch.nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        torch.nn.ConvTranspose2d(8, 3, 2, stride=2),
    )
    model = SegmentationModel(network, ModelDescription("own", CLASSES, 3, Normalization.named("half"), 2)).train()
    plain = 32 * 32 * 8 * 3 * 9
    depthwise = 16 * 16 * 8 * 9
    transposed = 16 * 16 * 8 * 3 * 4
    assert count_macs(model, size=32) == plain + depthwise + transposed
    assert model.training


def test_profile_has_the_form_that_reports_read(profile, folder):
    assert json.loads(json.dumps(profile)) == profile
    assert profile["input"] == [1, 3, SIZE, SIZE]
    assert profile["file_bytes"] == (folder / "model.safetensors").stat().st_size
    assert profile["file_bytes"] > 4 * profile["parameters"]
    assert profile["latency_ms"]["runs"] == 5
    assert profile["latency_ms"]["threads"] == profile["machine"]["threads"] == 1
    assert 0 < profile["latency_ms"]["median"] <= profile["latency_ms"]["p95"]


def test_parameters_are_those_of_the_textbook(profile):
    # U-Net 32-512 by hand: 3x3 pairs (batch norm instead of biases), 2x2 transposed convolutions, 1x1 head.
    channels = [32, 64, 128, 256, 512]
    pair = lambda inputs, outputs: 9 * outputs * (inputs + outputs) + 4 * outputs  # noqa: E731
    encoder = sum(pair(i, o) for i, o in zip([3, *channels], channels, strict=False))
    decoder = sum(pair(2 * o, o) + 4 * 2 * o * o + o for o in channels[:-1])
    assert profile["parameters"] == encoder + decoder + 3 * 32 + 3


def test_memory_is_that_of_a_fresh_process(profile):
    weights_mb = profile["file_bytes"] / 1e6
    assert profile["peak_memory_mb"] > profile["baseline_memory_mb"] + weights_mb
    assert profile["baseline_memory_mb"] > 50
    assert profile["baseline_memory_mb"] < profile["resident_here_mb"] - 250


def test_a_model_in_memory_has_the_same_costs(profile, folder, monkeypatch):
    model = load_model(folder).train()
    measured = []
    # A second process would only take time; what it is given must be a model folder all the same.
    monkeypatch.setattr(
        "segshrink.profiling.profile.measure_memory",
        lambda job: measured.append(load_model(job.source).description) or {"peak_memory_mb": 1.0},
    )
    found = profile_model(model, size=SIZE, runs=1, threads=1)
    for key in ("parameters", "macs", "file_bytes", "input"):
        assert found[key] == profile[key]
    assert measured == [model.description]
    assert model.training


def test_latency_restores_the_number_of_threads():
    class Threads(torch.nn.Conv2d):
        seen = 0

        def forward(self, images):
            Threads.seen = torch.get_num_threads()
            return super().forward(images)

    model = SegmentationModel(Threads(3, 3, 1), ModelDescription("own", CLASSES, 3, Normalization.named("half"), 1))
    before = torch.get_num_threads()
    measure_latency(model, size=4, runs=1, threads=before + 1)
    assert Threads.seen == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ModelError, match="at least 1 run"):
        measure_latency(model, size=4, runs=0, threads=1)


def test_missing_model_says_so(tmp_path):
    with pytest.raises(FileError, match=r"config\.json"):
        profile_model(tmp_path)
