"""The file for sbatch that ``segshrink submit`` prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from segshrink import submit
from segshrink.cli import main
from segshrink.config import load_recipe
from segshrink.errors import ConfigError, UsageError

DATA = {
    "name": "field",
    "images": "*.png",
    "masks": "*.png",
    "classes": [{"name": "a", "value": 0}, {"name": "b", "value": 1}],
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe of a field.yaml"
    split = {"split": {"train": ["a"], "val": ["b"]}}
    path.write_text(yaml.safe_dump({"name": "a field", "data": DATA | split, "student": {"model": "mobile"}}))
    return path


def arguments_of(job: str) -> list[str]:
    """Return the command that srun starts."""
    (line,) = re.findall(r"^srun .*$", job, flags=re.MULTILINE)
    words = shlex.split(line)
    return words[words.index("segshrink") : words.index("&")]


@pytest.mark.skipif(os.name == "nt", reason="the job is a bash script")
def test_the_job_asks_for_the_devices_that_its_command_trains_on(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert (
        main(["submit", str(recipe), "student.training.epochs=3", "-o", str(out), "--nodes", "2", "--gpus", "4"]) == 0
    )
    job = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=job, text=True, check=True)
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", job, flags=re.MULTILINE))
    assert asked["job-name"] == "segshrink-a-field"
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == ("2", "4", "4")
    assert asked["signal"] == "B:USR1@300"
    assert asked["requeue"] == ""
    program, verb, path, *overrides, _, folder, resume = arguments_of(job)
    assert (program, verb, path, folder, resume) == ("segshrink", "distill", str(recipe), str(out), "--resume")
    student = load_recipe(Path(path), overrides).student
    assert student is not None
    assert (student.training.devices, student.training.nodes, student.training.epochs) == (4, 2, 3)


@pytest.mark.skipif(os.name == "nt", reason="the job is a bash script")
def test_a_job_whose_time_is_up_ends_its_processes_and_queues_again(recipe: Path, tmp_path: Path) -> None:
    """Stand-ins for SLURM's programs note what they are asked; the training ends when it is told to."""
    notes = tmp_path / "notes"
    programs = {
        "srun": f'trap "exit 143" TERM; echo $$ > {tmp_path}/training; kill -USR1 $PPID; while :; do sleep 0.05; done',
        "scancel": f'echo scancel "$@" >> {notes}; kill -TERM $(cat {tmp_path}/training)',
        "scontrol": f'echo scontrol "$@" >> {notes}',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
    job = submit(recipe, out=tmp_path / "run")
    subprocess.run(["bash", "-c", job], env=environment, check=False, timeout=600)
    assert notes.read_text().splitlines() == ["scancel --signal=TERM 12", "scontrol requeue 12"]


def test_a_teacher_that_is_trained_on_the_way_uses_the_same_devices(recipe: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**content, "teacher": {"model": "unet"}}))
    assert "teacher.training.devices=2" in arguments_of(submit(recipe, out=tmp_path, gpus=2))
    recipe.write_text(yaml.safe_dump({**content, "student": None, "teacher": {"model": "unet"}}))
    assert arguments_of(submit(recipe, out=tmp_path, gpus=2))[:2] == ["segshrink", "train"]


def test_what_the_job_would_refuse_is_refused(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size is 8.*multiple of 3"):
        submit(recipe, out=tmp_path, gpus=3)
    with pytest.raises(UsageError, match="24:00:00"):
        submit(recipe, out=tmp_path, time="2h")
    content = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**content, "student": None}))
    with pytest.raises(ConfigError, match="neither 'student' nor 'teacher'"):
        submit(recipe, out=tmp_path)
