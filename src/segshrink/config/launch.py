"""How this process was started, and whether that fits the devices that a recipe trains on.

Looked at before anything is loaded: what doesn't fit hangs later, or trains on fewer devices without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from segshrink.config.training import Training
from segshrink.errors import ConfigError

# Names of SLURM jobs in which somebody types: what is started there is no task of SLURM's.
_INTERACTIVE = ("bash", "interactive")


@dataclass(frozen=True)
class Launch:
    """Who started this process, and which of the processes it is.

    Attributes:
        by: "hand": nobody started others beside it.
        processes: How many were started, on all machines.
        rank: Its number among them; 0 leads.
        local_rank: Its number among those of its machine, which is that of its GPU.
        node: The number of its machine.
    """

    by: Literal["hand", "torchrun", "srun"] = "hand"
    processes: int = 1
    rank: int = 0
    local_rank: int = 0
    node: int = 0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Launch:
        """Read it from the variables that torchrun and srun set; torchrun may be a task of srun's.

        Raises:
            ConfigError: One of them isn't a number.
        """

        def number(name: str, default: int = 0) -> int:
            return _number(environment, name, default)

        if {"RANK", "WORLD_SIZE"} <= environment.keys():
            return cls("torchrun", number("WORLD_SIZE"), number("RANK"), number("LOCAL_RANK"), number("GROUP_RANK"))
        if "SLURM_STEP_NUM_TASKS" in environment and not _is_interactive(environment):
            place = (number("SLURM_PROCID"), number("SLURM_LOCALID"), number("SLURM_NODEID"))
            return cls("srun", number("SLURM_STEP_NUM_TASKS"), *place)
        return cls()


def check_launch(training: Training, environment: Mapping[str, str], *, batch_size: int) -> Launch:
    """Return how this process was started, where that fits what is to be trained.

    Args:
        training: Says on how many devices and machines.
        environment: Variables of this process.
        batch_size: Crops of a step.

    Raises:
        ConfigError: It doesn't fit; says what to write.
    """
    launch = Launch.of(environment)
    if batch_size % training.processes:
        raise ConfigError(
            f"crops.batch_size is {batch_size}, which {training.processes} processes can't share evenly; choose a "
            f"multiple of {training.processes}"
        )
    fault = {"hand": _fault_by_hand, "torchrun": _fault_of_torchrun, "srun": _fault_of_srun}[launch.by]
    if (found := fault(training, environment, launch) or _fault_of_gpus(training, environment, launch)) is not None:
        raise ConfigError(f"training.devices={training.devices} and training.nodes={training.nodes}, but {found}")
    return launch


def _fault_by_hand(training: Training, environment: Mapping[str, str], launch: Launch) -> str | None:
    if _number(environment, "WORLD_SIZE", 1) > 1:
        return (
            f"WORLD_SIZE={environment['WORLD_SIZE']} without RANK: nobody started the other processes; unset it, or "
            f"start with: {_torchrun(training)}"
        )
    tasks = _number(environment, "SLURM_NTASKS", 1)
    if tasks > 1 and not _is_interactive(environment):
        return f"SLURM_NTASKS={tasks} and srun didn't start this process, so it would be alone; write srun before it"
    if training.nodes > 1:
        return f"nobody started the other machines; start with: {_torchrun(training)}, or with segshrink submit"
    return None


def _fault_of_torchrun(training: Training, environment: Mapping[str, str], launch: Launch) -> str | None:
    local = _number(environment, "LOCAL_WORLD_SIZE", training.devices)
    if (launch.processes, local) == (training.processes, training.devices):
        return None
    nodes = launch.processes // max(1, local)
    return (
        f"torchrun started {local} of {launch.processes} processes here; start with: {_torchrun(training)}, or set "
        f"training.devices={local} and training.nodes={nodes}"
    )


def _fault_of_srun(training: Training, environment: Mapping[str, str], launch: Launch) -> str | None:
    devices, nodes = training.devices, training.nodes
    started = _number(environment, "SLURM_STEP_NUM_NODES", _number(environment, "SLURM_NNODES", nodes))
    even = str(devices) if nodes == 1 else f"{devices}(x{nodes})"
    placed = environment.get("SLURM_STEP_TASKS_PER_NODE", even)
    if (launch.processes, started, placed) == (training.processes, nodes, even):
        return None
    return (
        f"srun started {launch.processes} tasks on {started} nodes ({placed} a node); write #SBATCH --nodes={nodes}, "
        f"#SBATCH --ntasks-per-node={devices}, #SBATCH --gpus-per-node={devices}, and no --ntasks"
    )


def _fault_of_gpus(training: Training, environment: Mapping[str, str], launch: Launch) -> str | None:
    """Compare the GPUs that this process sees; one that sees none trains on the CPU."""
    listed = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    visible = len([entry for entry in listed if entry.strip() not in ("", "-1", "NoDevFiles")])
    if visible == 0 or visible >= training.devices:
        return None
    remedy = f"let it name {training.devices}, or set training.devices={visible}"
    if launch.by == "srun":
        remedy = f"write #SBATCH --gpus-per-node={training.devices} instead of --gpus-per-task or --gpu-bind"
    return f"CUDA_VISIBLE_DEVICES={environment['CUDA_VISIBLE_DEVICES']} shows {visible}; {remedy}"


def _torchrun(training: Training) -> str:
    nodes = f"--nnodes {training.nodes} --rdzv-backend c10d --rdzv-endpoint HOST:29400 " if training.nodes > 1 else ""
    return f"torchrun {nodes}--nproc-per-node {training.devices} -m segshrink.cli"


def _is_interactive(environment: Mapping[str, str]) -> bool:
    return environment.get("SLURM_JOB_NAME") in _INTERACTIVE


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(environment.get(name, default))
    except ValueError as error:
        raise ConfigError(f"{name}={environment[name]} is no number; unset it") from error
