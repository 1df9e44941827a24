from __future__ import annotations

import json
import subprocess
import sys

import psutil
import torch

from segshrink.machine import available_cores, describe_machine


def test_describes_this_machine():
    machine = describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["cpu"]
    assert machine["cores"] == available_cores() == len(psutil.Process().cpu_affinity())
    assert machine["threads"] == torch.get_num_threads()
    assert abs(machine["memory_gb"] - psutil.virtual_memory().total / 1e9) < 0.1
    assert machine["torch"] == torch.__version__.partition("+")[0]
    assert machine["python"] == ".".join(map(str, sys.version_info[:3]))
    assert describe_machine(threads=7)["threads"] == 7


def test_works_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from segshrink.machine import describe_machine; print(describe_machine()['threads'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == available_cores()
