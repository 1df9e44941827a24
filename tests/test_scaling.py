"""The commands of docs/scaling.md, with the variables that each scheduler sets."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from segshrink.cli import main
from segshrink.config import Learner, Training
from segshrink.config.launch import Launch, check_launch
from segshrink.prediction.scenes import Shard

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
JOB, WORKFLOW, TRAINING = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL))


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


def test_trainings_are_started_as_their_overrides_say() -> None:
    assert Learner.model_validate({"model": "mobile", **TRAINING["student"]}).training.processes == 4
    (command,) = re.findall(r"^torchrun .*?--out \S+$", TEXT, flags=re.MULTILINE | re.DOTALL)
    words = shlex.split(command)
    nodes, local = (words[words.index(option) + 1] for option in ("--nnodes", "--nproc-per-node"))
    chosen = dict(re.findall(r"student\.training\.(\w+)=(\d+)", command))
    environment = {"RANK": "0", "WORLD_SIZE": str(int(nodes) * int(local)), "LOCAL_WORLD_SIZE": local}
    training = Training(devices=int(chosen["devices"]), nodes=int(chosen["nodes"]))
    assert check_launch(training, environment, batch_size=8) == Launch("torchrun", 8)


def test_the_job_of_the_page_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    classes = [{"name": name, "value": value} for value, name in enumerate("ab")]
    data = {
        "name": "field",
        "images": "*.png",
        "masks": "*.png",
        "classes": classes,
        "split": {"train": ["a"], "val": ["b"]},
    }
    Path("recipe.yaml").write_text(yaml.safe_dump({"data": data, "student": {"model": "mobile"}}))
    (command,) = re.findall(r"^segshrink (submit .*) \| sbatch$", TEXT, flags=re.MULTILINE)
    assert main(shlex.split(command)) == 0
    assert "#SBATCH --time=12:00:00\n" in capsys.readouterr().out
