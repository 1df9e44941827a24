"""Environments that processes are started in, and recipes that fit them or don't."""

from __future__ import annotations

import pytest

from segshrink.config import Training
from segshrink.config.launch import Launch, check_launch
from segshrink.errors import ConfigError

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
# What srun sets for the last of four tasks on two machines.
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "segshrink-field",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
# What sbatch sets for the script itself.
BATCH = {name: value for name, value in SRUN.items() if "STEP" not in name} | {
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "launch"),
    [
        (1, 1, {}, Launch()),
        (2, 1, {}, Launch()),  # the others are started by this one
        (2, 1, {"CUDA_VISIBLE_DEVICES": "0,1,2"}, Launch()),
        (2, 1, {"CUDA_VISIBLE_DEVICES": ""}, Launch()),  # on the CPU
        (2, 1, TORCHRUN, Launch("torchrun", 2, 1, 1, 0)),
        (2, 2, SRUN, Launch("srun", 4, 3, 1, 1)),
        # torchrun as srun's only task of each machine.
        (2, 1, {**SRUN, "SLURM_STEP_NUM_TASKS": "1", **TORCHRUN}, Launch("torchrun", 2, 1, 1, 0)),
        # Somebody types in a shell that has four tasks.
        (2, 1, {**SRUN, "SLURM_JOB_NAME": "bash"}, Launch()),
        (1, 1, {**BATCH, "SLURM_NTASKS": "1"}, Launch()),
    ],
)
def test_what_fits_says_which_process_this_is(
    devices: int, nodes: int, environment: dict[str, str], launch: Launch
) -> None:
    assert check_launch(Training(devices=devices, nodes=nodes), environment, batch_size=8) == launch


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "lines"),
    [
        # Lightning#20391: --ntasks=1 beside --ntasks-per-node=2 trains on one device without a word.
        (
            2,
            1,
            {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "1"},
            ["srun started 1 tasks on 1 nodes", "#SBATCH --ntasks-per-node=2", "no --ntasks"],
        ),
        # Lightning#18650: python without srun.
        (2, 2, BATCH, ["SLURM_NTASKS=4", "write srun before it"]),
        # Lightning#19883: as many tasks as GPUs, and a recipe that knows of one.
        (1, 1, SRUN, ["srun started 4 tasks", "#SBATCH --ntasks-per-node=1"]),
        (4, 1, SRUN, ["on 2 nodes", "#SBATCH --nodes=1", "#SBATCH --ntasks-per-node=4"]),
        # Three tasks here and one there.
        (2, 2, {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "3,1"}, ["3,1 a node", "#SBATCH --ntasks-per-node=2"]),
        # A GPU for each task, which doesn't see those of the others.
        (2, 2, {**SRUN, "CUDA_VISIBLE_DEVICES": "1"}, ["=1 shows 1", "#SBATCH --gpus-per-node=2", "--gpus-per-task"]),
        (2, 1, {"CUDA_VISIBLE_DEVICES": "GPU-5a1f"}, ["=GPU-5a1f shows 1", "training.devices=1"]),
        (2, 1, {"CUDA_VISIBLE_DEVICES": "0,-1"}, ["shows 1"]),
        (1, 1, TORCHRUN, ["started 2 of 2", "torchrun --nproc-per-node 1", "training.devices=2 and training.nodes=1"]),
        (2, 2, TORCHRUN, ["torchrun --nnodes 2", "--nproc-per-node 2", "training.nodes=1"]),
        (1, 2, TORCHRUN, ["torchrun --nnodes 2", "--nproc-per-node 1"]),  # both on one machine
        (2, 1, {"WORLD_SIZE": "2"}, ["WORLD_SIZE=2 without RANK", "torchrun --nproc-per-node 2"]),
        (2, 2, {}, ["torchrun --nnodes 2", "segshrink submit"]),
        (2, 2, {**SRUN, "SLURM_JOB_NAME": "interactive"}, ["torchrun --nnodes 2"]),
        (2, 1, {**TORCHRUN, "WORLD_SIZE": "two"}, ["WORLD_SIZE=two"]),
    ],
)
def test_what_would_hang_or_use_fewer_devices_is_refused_with_the_right_lines(
    devices: int, nodes: int, environment: dict[str, str], lines: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_launch(Training(devices=devices, nodes=nodes), environment, batch_size=8)
    assert [line for line in lines if line not in str(refused.value)] == []


def test_crops_are_shared_evenly() -> None:
    with pytest.raises(ConfigError, match=r"batch_size is 9.*multiple of 2"):
        check_launch(Training(devices=2), {}, batch_size=9)
