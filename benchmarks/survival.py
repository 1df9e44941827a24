"""Claim: whatever ends a command, it says so in order, leaves nothing behind, and goes on to the undisturbed result.

    python benchmarks/survival.py                          # hours on one core; goes on where it was stopped
    python benchmarks/survival.py --attempts 2 --jobs train predict --faults killed --out /tmp/smoke

Several at once share what is to be done. Every attempt starts a real command, disturbs it at a random moment between
its first file and its usual end, looks at how it ended, lets it go on, and compares with what the undisturbed command
gave: weights, maps, scores and metrics to the bit; of ``compress`` all but latencies; of ``tune`` that each trial ends
once, and the finished ones stay as they are.

- killed: SIGKILL to the command and its processes.
- ended: SIGTERM or SIGINT; exit status 143 or 130 (or 0, when it was done already), no traceback, nothing left running.
- disk full: the output lies on a small tmpfs that fills up; status 1 and one sentence; then there is space again.
- disk closed: the tmpfs becomes read-only; likewise.
- image gone: a file that it reads is moved away; status 0 or 1 and one sentence; then it is back.
- state damaged: killed, and a byte of the last checkpoint is changed.
- clock set back: killed, and it goes on a day earlier (``faketime``).
- two at once: a second command for the same output; it takes a share, or names who is there, and the first one ends.

Mounting needs root on Linux, the clock the program ``faketime``; what can't be tried here is said.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locks import locked
from segshrink.files import read_json
from survival_jobs import Job, Result, environment, prepare
from survival_results import lock_of, record, rows_of, write_page

RESULTS = Path(__file__).resolve().parent / "results"
ENDED = {signal.SIGTERM: 143, signal.SIGINT: 130}
# Longest that a command may take, and seconds after which the lease of a dead worker's trial is out.
PATIENCE, LEASE = 900, 3600
# A command is killed so many times as often as it meets another fault.
OFTENER = 3
UNTRIED: dict[str, Any] = {"attempts": 0, "lost": 0, "how": []}


class LostError(Exception):
    """An attempt didn't end as it should."""


@dataclass(frozen=True)
class Whole:
    """An undisturbed command: seconds until its first file and its end, bytes on the disk, and its result."""

    begins: float
    seconds: float
    size: int
    result: Result


@dataclass
class Attempt:
    """One command that is disturbed.

    Attributes:
        job: The command.
        home: What it reads.
        folder: Of its own; the output is ``out``.
        whole: The undisturbed command.
        moment: Seconds after its start when it is disturbed.
        log: The file in ``folder`` that holds what the command says.
    """

    job: Job
    home: Path
    folder: Path
    whole: Whole
    moment: float
    log: str = "first.txt"

    @property
    def out(self) -> Path:
        """Where the command writes."""
        return self.folder / "disk" / "out"

    def start(self, *, again: bool = False, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start the command, in a session of its own."""
        command = [*before, *self.job.command(self.out, again=again)]
        variables = environment(self.home, self.folder / "cache")
        with (self.folder / self.log).open("w", encoding="utf-8") as told:
            return subprocess.Popen(
                command, stdout=told, stderr=subprocess.STDOUT, text=True, env=variables, start_new_session=True
            )

    def wait(self, program: subprocess.Popen[str]) -> int:
        """Return the exit status; nothing may be left of the session, and nobody has seen a traceback."""
        try:
            status = program.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            end_session(program, signal.SIGKILL)
            raise LostError(f"not ended after {PATIENCE} s") from None
        if end_session(program, signal.SIGKILL):
            raise LostError("it left processes running")
        if "Traceback" in self.told:
            raise LostError(f"traceback: {self.told.strip().splitlines()[-1]}")
        return status

    @property
    def told(self) -> str:
        """What the command says."""
        return (self.folder / self.log).read_text(encoding="utf-8")

    def start_to_moment(self) -> subprocess.Popen[str]:
        """Start the command, and let the moment come, or its end."""
        program = self.start()
        with suppress(subprocess.TimeoutExpired):
            program.wait(self.moment)
        return program

    def kill(self) -> None:
        """Start the command, and kill all of its session at the moment."""
        program = self.start_to_moment()
        end_session(program, signal.SIGKILL)
        program.wait()

    def go_on(self, before: Sequence[str] = ()) -> None:
        """Let the command go on to its end, and compare."""
        finished = self.job.finished(self.out)
        for lease in self.out.rglob("*.leases/*"):
            os.utime(lease, (time.time() - LEASE,) * 2)
        status = self.wait(self.start(again=self.out.exists(), before=before))
        if status:
            raise LostError(f"went on to status {status}: {self.sentence}")
        found = self.job.result(self.out)
        if other := [name for name in {**found, **self.whole.result} if found.get(name) != self.whole.result.get(name)]:
            raise LostError(f"another result: {', '.join(sorted(other)[:3])}")
        afterwards = self.job.finished(self.out)
        if lost := [name for name, ending in finished.items() if afterwards.get(name) != ending]:
            raise LostError(f"lost or begun again: {', '.join(lost)}")
        left = [path for path in self.out.rglob(".segshrink-*") if path.is_dir()]
        if left := [*left, *self.out.rglob(".*.segshrink-lock")]:
            raise LostError(f"left behind: {left[0].name}")

    @property
    def sentence(self) -> str:
        """The one sentence of its error."""
        lines = [line for line in self.told.splitlines() if line.lower().startswith("error: ")]
        if len(lines) != 1:
            raise LostError(f"{len(lines)} sentences: {self.told[-200:]!r}")
        return lines[0]


def ends_soon(program: subprocess.Popen[str]) -> bool:
    """Whether a program ends within seconds."""
    with suppress(subprocess.TimeoutExpired):
        program.wait(5)
    return program.poll() is not None


def end_session(program: subprocess.Popen[str], number: int) -> bool:
    """Send a signal to all of a session; tell whether anybody was there."""
    try:
        os.killpg(program.pid, number)
    except ProcessLookupError:
        return False
    return True


def killed(attempt: Attempt, chance: random.Random) -> None:
    """Kill it at the moment."""
    attempt.kill()
    attempt.go_on()


def ended(attempt: Attempt, chance: random.Random) -> None:
    """Ask it to end."""
    number = chance.choice(list(ENDED))
    program = attempt.start_to_moment()
    program.send_signal(number)
    status = attempt.wait(program)
    if status not in (0, ENDED[number]):
        raise LostError(f"status {status} after {signal.Signals(number).name}: {attempt.told[-200:]!r}")
    attempt.go_on()


def disk_full(attempt: Attempt, chance: random.Random) -> None:
    """Give it a part of the space that it takes, then enough."""
    remount(attempt, f"size={max(4096, int(attempt.whole.size * chance.uniform(0.02, 0.98)))}")
    status = attempt.wait(attempt.start())
    if status not in (0, 1) or (status and "space" not in attempt.sentence):
        raise LostError(f"status {status} on a full disk: {attempt.told[-200:]!r}")
    remount(attempt, "size=1g")
    attempt.go_on()


def disk_closed(attempt: Attempt, chance: random.Random) -> None:
    """Forbid writing at the moment."""
    program = attempt.start_to_moment()
    while remount(attempt, "ro", check=False) and program.poll() is None:
        time.sleep(0.001)  # not between the opening and the closing of a file
    status = attempt.wait(program)
    if status not in (0, 1) or (status and not attempt.sentence):
        raise LostError(f"status {status} on a closed disk: {attempt.told[-200:]!r}")
    remount(attempt, "rw")
    attempt.go_on()


def image_gone(attempt: Attempt, chance: random.Random) -> None:
    """Move a file away that it reads, and back afterwards."""
    image = chance.choice(sorted(attempt.home.glob("*/images/*.png")))
    aside = attempt.folder / image.name
    program = attempt.start_to_moment()
    image.rename(aside)
    try:
        status = attempt.wait(program)
    finally:
        aside.rename(image)
    if status not in (0, 1) or (status and image.name not in attempt.told):
        raise LostError(f"status {status} without {image.name}: {attempt.told[-200:]!r}")
    attempt.go_on()


def state_damaged(attempt: Attempt, chance: random.Random) -> None:
    """Kill it and change a byte of its last state, where there is an earlier one."""
    attempt.kill()
    states = [path for path in attempt.out.rglob("last.ckpt") if path.with_name("previous.ckpt").exists()]
    for path in states:
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    attempt.go_on()


def clock_set_back(attempt: Attempt, chance: random.Random) -> None:
    """Kill it, and go on a day earlier."""
    attempt.kill()
    attempt.go_on(before=("faketime", "-f", "-1d"))


def two_at_once(attempt: Attempt, chance: random.Random) -> None:
    """Start it twice; the second may come later."""
    program = attempt.start_to_moment()
    attempt.log = "second.txt"
    status = attempt.wait(attempt.start(again=attempt.out.exists()))
    named = f"{program.pid}" in attempt.told or ends_soon(program)  # there is nobody to be named any more
    if status not in (0, 1) or (status and not (attempt.sentence and named)):
        raise LostError(f"the second ended with status {status}: {attempt.told[-200:]!r}")
    attempt.log = "first.txt"
    if attempt.wait(program):
        raise LostError(f"the first ended with status {program.returncode}: {attempt.told[-200:]!r}")
    attempt.go_on()


FAULTS: dict[str, Callable[[Attempt, random.Random], None]] = {
    "killed": killed,
    "ended": ended,
    "disk full": disk_full,
    "disk closed": disk_closed,
    "image gone": image_gone,
    "state damaged": state_damaged,
    "clock set back": clock_set_back,
    "two at once": two_at_once,
}
MOUNTED = {"disk full", "disk closed"}


def remount(attempt: Attempt, option: str, *, check: bool = True) -> int:
    """Change the small disk of an attempt; return the exit status."""
    disk = attempt.folder / "disk"
    return subprocess.run(["mount", "-o", f"remount,{option}", disk], check=check, stderr=subprocess.DEVNULL).returncode


def unmount(disk: Path) -> None:
    """Take a small disk away."""
    subprocess.run(["umount", "-l", disk], check=True)


def possible(job: Job, fault: str) -> bool:
    """Whether a fault can be tried on a job here."""
    if fault in MOUNTED:
        return sys.platform == "linux" and os.geteuid() == 0
    if fault == "clock set back":
        return shutil.which("faketime") is not None
    return fault != "state damaged" or job.trains


def undisturbed(job: Job, home: Path, folder: Path) -> Whole:
    """Run a command to its end."""
    attempt = Attempt(job, home, folder, Whole(0, 0, 0, {}), 0)
    start = time.monotonic()
    program = attempt.start()
    begins = 0.0
    while program.poll() is None:
        if not begins and attempt.out.exists() and any(attempt.out.iterdir()):
            begins = time.monotonic() - start
        time.sleep(0.01)
    seconds = time.monotonic() - start
    if attempt.wait(program):
        raise SystemExit(f"{' '.join(job.arguments)} fails undisturbed: {attempt.told}")
    size = sum(path.stat().st_size for path in attempt.out.rglob("*") if path.is_file())
    return Whole(begins or seconds / 2, seconds, size, job.result(attempt.out))


def tried(job: Job, fault: str, home: Path, whole: Whole, seed: str) -> str | None:
    """Make one attempt; return how it was lost, or None."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "disk").mkdir()
        if fault in MOUNTED:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder / "disk"], check=True)
            stack.callback(unmount, folder / "disk")
        attempt = Attempt(job, home, folder, whole, chance.uniform(whole.begins, whole.seconds))
        try:
            FAULTS[fault](attempt, chance)
        except LostError as error:
            return f"after {attempt.moment:.1f} of {whole.seconds:.1f} s: {error}".replace(name, "")
    return None


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; the exit status is 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--attempts", type=int, default=20, help="kills of each command; a third of them of each other fault"
    )
    parser.add_argument("--jobs", nargs="+", help="only these")
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS), help="only these")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--retry", action="store_true", help="try rows anew in which anything was lost")
    parser.add_argument("--again", action="store_true", help="forget what was tried before")
    given = parser.parse_args(arguments)
    path = given.out / "survival.json"
    if given.again:
        path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as work:
        home = Path(work) / "home"
        home.mkdir()
        jobs = prepare(home)
        for name in given.jobs or jobs:
            whole: Whole | None = None
            for fault in given.faults:
                with locked(lock_of(path, f"{name}-{fault}")) as mine:
                    row = rows_of(path).get(f"{name}: {fault}", {"job": name, "fault": fault, **UNTRIED})
                    if given.retry and row["lost"]:
                        row |= {**UNTRIED, "before": [*row.get("before", ()), *row["how"]]}
                    attempts = given.attempts if fault == "killed" else -(-given.attempts // OFTENER)
                    while mine and possible(jobs[name], fault) and row["attempts"] < attempts:
                        if whole is None:
                            folder = Path(work) / name
                            (folder / "disk").mkdir(parents=True)
                            whole = undisturbed(jobs[name], home, folder)
                        how = tried(jobs[name], fault, home, whole, f"{name} {fault} {row['attempts']}")
                        row["attempts"] += 1
                        if how is not None:
                            row["lost"] += 1
                            row["how"] = [*row["how"], how]
                        print(f"{name}, {fault}, attempt {row['attempts']}: {how or 'survived'}", flush=True)
                        record(path, row)
    if path.exists():
        write_page(path, read_json(path))  # what was fuzzed meanwhile is on it
    return int(any(row["lost"] for row in rows_of(path).values()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
