"""The commands of docs/scaling.md, with the variables that each scheduler sets."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from segshrink.prediction.scenes import Shard

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
JOB, WORKFLOW = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL))


def shares(command: str, places: list[dict[str, str]], tmp_path: Path) -> list[Shard]:
    """Run a command with each of some environments, and a program that prints its arguments instead of ours."""
    stand_in = tmp_path / "segshrink"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    found = []
    for place in places:
        done = subprocess.run(
            ["sh", "-c", command], env={"PATH": path, **place}, capture_output=True, text=True, check=True
        )
        arguments = done.stdout.split("\n")
        assert arguments[:3] == ["predict", "student.onnx", "scenes"]
        found.append(Shard.parse(arguments[arguments.index("--shard") + 1]))
    return found


@pytest.mark.skipif(os.name == "nt", reason="the commands are for a POSIX shell")
def test_each_scheduler_asks_for_every_share_once(tmp_path: Path) -> None:
    every = [Shard(number, 16) for number in range(1, 17)]
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    shell, option, command = container["command"]
    assert (shell, option) == ("sh", "-c")
    assert JOB["spec"]["completions"] == 16
    assert shares(command, [{"JOB_COMPLETION_INDEX": str(index)} for index in range(16)], tmp_path) == every

    templates: dict[str, Any] = {template["name"]: template for template in WORKFLOW["spec"]["templates"]}
    ((step,),) = templates[WORKFLOW["spec"]["entrypoint"]]["steps"]
    assert step["withSequence"] == {"start": "1", "end": "16"}
    command = templates[step["template"]]["container"]["command"][2]
    filled = [command.replace("{{inputs.parameters.share}}", str(number)) for number in range(1, 17)]
    assert [share for one in filled for share in shares(one, [{}], tmp_path)] == every

    (array,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", TEXT, flags=re.DOTALL)
    assert "#SBATCH --array=1-16" in array
    line = array.splitlines()[-1].removeprefix("srun ")
    places = [{"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "16"} for number in range(1, 17)]
    assert shares(line, places, tmp_path) == every

    (parallel,) = re.findall(r"parallel (segshrink .*)", TEXT)
    assert [shares(parallel.replace("{}", str(number)), [{}], tmp_path)[0] for number in (1, 8)] == [
        Shard(1, 8),
        Shard(8, 8),
    ]
