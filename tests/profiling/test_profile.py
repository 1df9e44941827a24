from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from segshrink.classes import ClassMap
from segshrink.errors import ConfigError, FileError, ModelError
from segshrink.model_description import ModelDescription, Normalization
from segshrink.models import SegmentationModel, build_model, load_model
from segshrink.profiling import Load, Measurement, profile_model
from segshrink.profiling.parameters_and_macs import count_macs
from segshrink.profiling.profile import ForeignModel, profile_models

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
    assert set(profile["load"]) == {"others", "cores", "seconds", "busy"}
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


def test_models_in_memory_are_timed_in_turns_with_folders_and_foreign_ones(profile, folder, monkeypatch):
    model = load_model(folder).train()
    measured = []

    # Other processes would only take time; what they are given must be a model folder all the same.
    def measure(jobs, **options):
        measured.extend(load_model(job.source).description for job in jobs if job.backend is None)
        assert options["seconds"] <= 20, "a slow model doesn't keep people waiting"
        assert {(job.runtime, job.precision, job.size, job.cores) for job in jobs} == {("torch", "32", SIZE, 1)}
        load = Load(seconds=10.0, others=12.6, cores=2)
        times = {"median": 3.0, "p95": 4.0, "low": 3.0, "high": 3.0, "runs": 1}
        return [Measurement(job, times, None if job.backend else 80.0, 50.0, load=load) for job in jobs]

    monkeypatch.setattr("segshrink.profiling.profile.measure", measure)
    foreign = ForeignModel(SimpleNamespace(bands=4), 77)
    found = profile_models({"teacher": foreign, "student": model, "control": folder}, size=SIZE, runs=1, threads=1)
    for key in ("parameters", "macs", "file_bytes", "input"):
        assert found["student"][key] == found["control"][key] == profile[key]
    assert measured == [model.description] * 2
    assert model.training
    assert found["teacher"]["parameters"] == 77
    assert found["teacher"]["input"] == [1, 4, SIZE, SIZE]
    assert not {"macs", "peak_memory_mb", "file_bytes"} & set(found["teacher"])
    for one in found.values():
        assert one["load"] == {"others": 0.63, "cores": 2, "seconds": 10.0, "busy": True}
        assert one["session"] == found["teacher"]["session"]


def test_what_fails_is_told(folder, monkeypatch):
    failed = lambda jobs, **_: [Measurement(job, error="out of memory") for job in jobs]  # noqa: E731
    monkeypatch.setattr("segshrink.profiling.profile.measure", failed)
    with pytest.raises(ModelError, match="out of memory"):
        profile_model(folder, size=SIZE)


def test_no_run_is_no_measurement(folder):
    with pytest.raises(ConfigError, match="0 runs"):
        profile_model(folder, size=SIZE, runs=0)


def test_missing_model_says_so(tmp_path):
    with pytest.raises(FileError, match=r"config\.json"):
        profile_model(tmp_path)
