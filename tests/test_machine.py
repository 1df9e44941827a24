from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest
import torch

from segshrink import machine
from segshrink.machine import available_cores, cpu_instructions, default_threads, describe_machine


def test_describes_this_machine():
    found = describe_machine()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert all(name in found["cpu"] for name in cpu_instructions())
    assert found["cores"] == available_cores() == len(psutil.Process().cpu_affinity())
    assert found["threads"] == torch.get_num_threads()
    assert abs(found["memory_gb"] - psutil.virtual_memory().total / 1e9) < 0.1
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert describe_machine(threads=7)["threads"] == 7


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512_vnni\n" * 2, "AMD EPYC (avx2, avx512_vnni)"),
        ("model name\t: Old\nflags\t\t: fpu sse2\n", "Old"),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n", "(asimddp, i8mm)"),
    ],
)
def test_processors_of_one_name_are_told_apart(monkeypatch, info, expected):
    former = machine.Path.read_text

    def read(path, *arguments, **options):
        return info if str(path) == "/proc/cpuinfo" else former(path, *arguments, **options)

    monkeypatch.setattr(machine.Path, "read_text", read)
    assert describe_machine()["cpu"].endswith(expected)


def test_works_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from segshrink.machine import describe_machine; print(describe_machine()['threads'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == available_cores()


@pytest.mark.parametrize(
    ("limit", "threads"),
    [("3", 3), ("3,2", 3), ("99", 8), ("", 8), ("0", 8), ("-2", 8), ("many", 8), (None, 8), (" 04 ", 4)],
)
def test_measurements_respect_the_limit_on_threads(
    limit: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segshrink.machine.available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if limit is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert default_threads() == threads


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process begin its peak anew")
def test_the_peak_of_memory_begins_anew() -> None:
    held = bytearray(b"x") * 200_000_000
    highest = machine.peak_memory_mb()
    assert highest >= machine.resident_memory_mb() > 200
    del held
    machine.restart_peak_memory()
    assert machine.peak_memory_mb() < highest - 100


def test_processor_time_counts_ended_children(monkeypatch: pytest.MonkeyPatch) -> None:
    user, system, childrens_user, childrens_system, elapsed = 1.0, 0.5, 2.0, 0.25, 99.0
    times = os.times_result((user, system, childrens_user, childrens_system, elapsed))
    monkeypatch.setattr(os, "times", lambda: times)
    assert machine.processor_seconds() == 3.75
