"""A recipe as a job of SLURM's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from segshrink.config import Learner, load_recipe
from segshrink.config.launch import check_launch
from segshrink.errors import ConfigError, UsageError

# What SLURM takes for a time: minutes, minutes:seconds, hours:minutes:seconds, days-hours ...
_TIME = re.compile(r"(\d+-)?\d+(:\d\d){0,2}")
_JOB = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={gpus}
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300

# Five minutes before its time is up the job ends its processes, and queues again; it goes on from the last whole epoch.
again() {{
    scancel --signal=TERM "$SLURM_JOB_ID"
    wait "$training"
    scontrol requeue "$SLURM_JOB_ID"
}}
trap again USR1

export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun --kill-on-bad-exit=1 {command} &
training=$!
wait "$training"
"""


def submit(
    recipe: str | Path,
    *,
    out: str | Path,
    nodes: int = 1,
    gpus: int = 1,
    cpus: int = 4,
    time: str = "24:00:00",
    overrides: Sequence[str] = (),
) -> str:
    """Return the file that sbatch takes to train a recipe on GPUs of several machines.

    It distills where the recipe has a student, else it trains the teacher. Files must lie where all machines reach
    them.

    Args:
        recipe: The recipe's file.
        out: Run folder to write.
        nodes: Machines.
        gpus: GPUs of each, with a process for each.
        cpus: Cores of each process.
        time: Longest time of the job, as SLURM writes it: "24:00:00", "2-00". What takes longer queues again.
        overrides: As in ``load_recipe``.

    Raises:
        ConfigError: The recipe is wrong, or its batches can't be shared evenly.
        FileError: There is no such file.
        UsageError: The time isn't written as SLURM wants it.
    """
    if not _TIME.fullmatch(time):
        raise UsageError(f"SLURM writes a time as 24:00:00 or 2-00:00:00, found {time!r}")
    path = Path(recipe).resolve()
    loaded = load_recipe(path, overrides)
    roles = [role for role in ("student", "teacher") if getattr(loaded, role) is not None]
    if not roles:
        raise ConfigError(f"recipe '{loaded.name}' has neither 'student' nor 'teacher'; add what is to be trained")
    if roles[0] == "student" and loaded.distillation.teachers:
        del roles[1:]
    devices = [f"{role}.training.{key}={n}" for role in roles for key, n in (("devices", gpus), ("nodes", nodes))]
    loaded = load_recipe(path, [*overrides, *devices])
    learner: Learner = getattr(loaded, roles[0])
    tasks = {"SLURM_STEP_NUM_TASKS": str(nodes * gpus), "SLURM_STEP_NUM_NODES": str(nodes)}
    check_launch(learner.training, tasks, batch_size=loaded.crops.batch_size)
    verb = "distill" if roles[0] == "student" else "train"
    arguments = [verb, str(path), *overrides, *devices, "--out", str(Path(out).resolve()), "--resume"]
    return _JOB.format(
        name="segshrink-" + re.sub(r"[^\w.-]+", "-", loaded.name),
        nodes=nodes,
        gpus=gpus,
        cpus=cpus,
        time=time,
        command=shlex.join(["segshrink", *arguments]),
    )
