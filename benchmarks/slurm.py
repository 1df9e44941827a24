"""Proof: SLURM takes the job that ``segshrink submit`` prints, and a job whose time is up queues again and goes on.

    apt-get install slurm-wlm munge
    python benchmarks/slurm.py --out /tmp/slurm         # as root, ten minutes; results beside the script

Starts SLURM on this machine alone, one node with two GPUs that it only counts, and submits a training of two processes,
which compute on the CPU. Its time is eight minutes. Five minutes before they are up, in the midst of the training, the
job is told so: it ends its processes, queues again, and goes on from the last whole epoch until the training is done.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from processor_results import RESULTS
from segshrink import RunFolder, __version__, submit
from segshrink.config.yaml_text import format_yaml
from segshrink.data import write_scenes
from segshrink.files import write_text
from segshrink.machine import describe_machine

EPOCHS, CPUS, GPUS, TIME = 40, 1, 2, "00:08:00"
PATIENCE = 1500.0
# What a line of the job's log must hold to be worth a line of the results.
TOLD = re.compile(r"processes|epoch|resum|going on|goes on|requeue|CANCELLED|saved|error", re.IGNORECASE)

SLURM = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort=36817
SlurmdPort=36818
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
ReturnToService=2
MpiDefault=none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={gpus} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def daemon(*command: str, log: Path) -> Iterator[None]:
    """Keep a program in the foreground of its own process group running during the block."""
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Run SLURM on this machine alone during the block; its settings lie in ``folder``."""
    munge = folder / "munge"
    for part in (munge, folder / "state", folder / "spool"):
        part.mkdir(parents=True, exist_ok=True)
    munge.chmod(0o755)
    key = munge / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname()
    conf = folder / "slurm.conf"
    conf.write_text(SLURM.format(host=host, folder=folder, gpus=GPUS))
    for number in range(GPUS):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    os.environ["SLURM_CONF"] = str(conf)
    files = (f"--{name}-file={munge / name}" for name in ("pid", "log", "seed", "key"))
    with ExitStack() as running:
        running.enter_context(
            daemon("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files, log=munge / "out")
        )
        time.sleep(2)
        running.enter_context(daemon("slurmctld", "-D", "-f", str(conf), log=folder / "controller.out"))
        running.enter_context(daemon("slurmd", "-D", "-f", str(conf), log=folder / "node.out"))
        time.sleep(5)
        yield


def follow(job: str) -> list[str]:
    """Return each state that a job was in, with its time and restarts, until it has ended."""
    seen: list[str] = []
    last, began = "", time.monotonic()
    while time.monotonic() - began < PATIENCE:
        told = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
        (state,), (restarts,) = re.findall(r"JobState=(\w+)", told), re.findall(r"Restarts=(\d+)", told)
        if state + restarts != last:
            last = state + restarts
            seen.append(f"{time.monotonic() - began:5.0f} s  {state}, restarts: {restarts}")
            print(seen[-1], flush=True)
        if state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"):
            return seen
        time.sleep(1)
    raise SystemExit(f"job {job} did not end within {PATIENCE:.0f} s")


def main() -> None:
    """Submit, follow and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder for SLURM's files, scenes and run")
    folder: Path = parser.parse_args().out.resolve()
    data = write_scenes(folder / "scenes", train=8, val=2, size=256, seed=0)
    training = {"epochs": EPOCHS, "validate_every": 10, "precision": "32"}
    content = {
        "name": "loopback",
        "data": str(data),
        "crops": {"size": 128, "batch_size": 8, "per_epoch": 160},
        "teacher": {"model": "mobile", "training": training},
    }
    recipe, run = folder / "recipe.yaml", folder / "run"
    recipe.write_text(format_yaml(content))
    job = submit(recipe, out=run, gpus=GPUS, cpus=CPUS, time=TIME)
    (folder / "job.sh").write_text(job)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with slurm(folder):
        told = subprocess.run(["sbatch", "job.sh"], cwd=folder, capture_output=True, text=True, check=True).stdout
        print(told, end="", flush=True)
        states = follow(told.split()[-1])
    log = next(folder.glob("segshrink-*.log")).read_text(errors="replace")
    record = RunFolder(run).run()
    told_lines = [line for line in re.split(r"[\r\n]+", log) if TOLD.search(line)]
    version = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    page = [
        "# A job of SLURM's that queues again",
        "",
        f"Written by `benchmarks/slurm.py`, which explains it, {datetime.now(UTC).isoformat(timespec='seconds')}, "
        f"segshrink {__version__}, {version}, {describe_machine()['cpu']}. {record.steps} steps in all.",
        "",
        *("States:", "", "```text", *states, "```", ""),
        *("The job:", "", "```sh", job.replace(str(folder), "FOLDER").rstrip(), "```", ""),
        *("What it said:", "", "```text", *(line.replace(str(folder), "FOLDER") for line in told_lines), "```", ""),
    ]
    write_text(RESULTS / "slurm.md", "\n".join(page))
    print("\n".join(page))


if __name__ == "__main__":
    main()
