"""What machine a number was measured on. Imports no torch; says what torch uses where it is loaded already."""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self

# More threads than this end the process on some machines.
LARGEST_THREADS = 1024


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, so exactly that no later one is taken for it; as text "node-pid-start".

    Attributes:
        node: Eight hex digits for the host and, in a container, its numbering of processes.
        pid: The process id.
        start: When it began, in ticks since the machine started; 0 where that can't be known.
    """

    node: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.node}-{self.pid}-{self.start}"

    @classmethod
    def own(cls) -> Self:
        """Return this process."""
        return cls(_node(), os.getpid(), _own_start(os.getpid()))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what ``str`` gave; None for anything else."""
        node, _, numbers = text.partition("-")
        pid, _, start = numbers.partition("-")
        return cls(node, int(pid), int(start)) if pid.isdecimal() and start.isdecimal() else None

    def runs(self) -> bool | None:
        """Return whether the process is alive; None where that can't be known, as of another host's."""
        if self.node != _node() or os.name != "posix":
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return None
        return _start_of(self.pid) in (self.start, None)


def lock_file(stream: IO[Any]) -> bool | None:
    """Lock a file that is open for writing, for as long as it is open in this process and the process lives.

    Child processes don't hold it. Closing the file, however often it is open in this process, gives the lock away.

    Returns:
        Whether it was locked; False: another process holds it; None: files can't be locked here.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(1 << 30)  # a byte beyond the content, which others may read then
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


# As Linux names them, x86 first, then ARM.
_INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16", "sve"),
)


def describe_machine(*, threads: int | None = None) -> dict[str, Any]:
    """Describe this machine for a run's or a profile's records.

    Args:
        threads: Threads that the measured work used; by default torch's setting where torch is loaded, else the
            number of cores.

    Returns:
        ``cpu`` (model name and `cpu_instructions`, for processors of one name differ in them), ``cores`` (that this
        process may use), ``threads``, ``memory_gb`` (decimal gigabytes of physical memory, None where unknown),
        ``torch`` (version, None where absent) and ``python``.
    """
    cores = available_cores()
    if threads is None:
        torch = sys.modules.get("torch")
        threads = cores if torch is None else int(torch.get_num_threads())
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "threads": threads,
        "memory_gb": _memory_gb(),
        "torch": package_versions("torch").get("torch"),
        "python": platform.python_version(),
    }


def package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    versions = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may run on, at least one."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def available_cores() -> int:
    """Return how many cores this process may run on, at least 1."""
    return len(usable_cores())


def most_open_files() -> int | None:
    """Return how many files this process may have open at once; None where there is no limit."""
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if allowed < 0 else allowed


def can_fork() -> bool:
    """Whether a process can be split in two, as on Linux."""
    return hasattr(os, "fork")


def go_on_in_child(*, passed_on: Sequence[int]) -> tuple[int, int] | None:
    """Split this process in two, and wait for the child in the parent; only where processes can be forked.

    Args:
        passed_on: Signals that are passed on to the child.

    Returns:
        None in the child. In the parent the child's exit status, below 0 for a signal that ended it, and its largest
        resident set in bytes.
    """
    import resource

    child = os.fork()
    if child == 0:
        return None

    def pass_on(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in passed_on:
        signal.signal(number, pass_on)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return status, used


def default_threads() -> int:
    """Return how many threads a measurement uses when nobody says: the process's cores, or ``OMP_NUM_THREADS`` if less.

    Of a list such as "4,2" (nested parallelism) the first number counts; what isn't a positive number is no limit.
    """
    limit = re.match(r"\s*0*([1-9]\d*)", os.environ.get("OMP_NUM_THREADS", ""))
    return min(available_cores(), int(limit[1])) if limit else available_cores()


def available_memory() -> int | None:
    """Return the bytes of memory that this process may still take: what is free, within its limits; None if unknown."""
    limits = [_free_memory(), _free_in_group(), _free_in_address_space()]
    return min((max(0, free) for free in limits if free is not None), default=None)


def peak_memory_mb() -> float:
    """Return the largest resident set this process had so far, or since ``restart_peak_memory``, in 10^6 bytes."""
    # Not getrusage: on Linux a program started by another inherits the largest resident set of its parent.
    if (resident := _resident_bytes("VmHWM")) is not None:
        return round(resident / 1e6, 1)
    if sys.platform == "win32":
        import psutil

        return round(float(psutil.Process().memory_info().peak_wset) / 1e6, 1)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def resident_memory_mb() -> float:
    """Return the resident set of this process, in 10^6 bytes."""
    if (resident := _resident_bytes("VmRSS")) is None:
        import psutil

        resident = psutil.Process().memory_info().rss
    return round(resident / 1e6, 1)


def restart_peak_memory() -> None:
    """Let ``peak_memory_mb`` begin anew from what is resident now; only Linux can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def processor_seconds() -> float:
    """Return the processor time of this process, all threads together, and of its ended child processes."""
    return sum(os.times()[:4])


def last_words(status: int, complaints: bytes) -> str:
    """Say why a process failed: the signal that ended it, else the last line on its standard error.

    Args:
        status: Its exit status, other than 0, as ``subprocess`` gives it.
        complaints: What it wrote to standard error.
    """
    if status < 0:
        name = signal.Signals(-status).name
        return f"the process was ended by {name}" + (" (is there enough memory?)" if name == "SIGKILL" else "")
    lines = complaints.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"the process ended with exit status {status}"


def cpu_instructions() -> tuple[str, ...]:
    """Return which instruction sets this processor has that decide how fast and how exactly networks run.

    Empty where Linux doesn't tell.
    """
    flags = {flag for key in ("flags", "Features") for line in _cpu_info(key) for flag in line.split()}
    return tuple(name for name in _INSTRUCTIONS if name in flags)


def has_vnni() -> bool | None:
    """Tell whether the processor multiplies 8-bit integers in one instruction (VNNI); None where that isn't known."""
    instructions = cpu_instructions()
    if not instructions or platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    return "avx512_vnni" in instructions or "avx_vnni" in instructions


def memory_limit() -> int | None:
    """Return the bytes of memory that this process may use at most; None where unknown.

    The least of the machine's memory, the limit of its container (control group), and ``ulimit -v``.
    """
    limits = []
    with suppress(AttributeError, OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text(encoding="ascii")))
    if (space := address_space()) is not None:
        limits.append(space)
    return min(limits, default=None)


def address_space() -> int | None:
    """Return the bytes of address space that this process is limited to (``ulimit -v``); None without a limit."""
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _cpu_name() -> str:
    names = _cpu_info("model name")
    name = next((name for name in names if name), platform.processor() or platform.machine() or "unknown")
    instructions = ", ".join(cpu_instructions())
    return f"{name} ({instructions})" if instructions else name


def _cpu_info(key: str) -> list[str]:
    """Return what Linux says of its processors under one key, by processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key]


def _resident_bytes(key: str) -> int | None:
    """Return what Linux says of this process's memory under "VmRSS" or "VmHWM"; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)


def _free_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _free_in_group() -> int | None:
    """Return what a control group (a container, a batch job) leaves, page cache counted as free."""
    try:
        name = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace").partition("0::/")[2].strip()
        folder = Path("/sys/fs/cgroup") / name
        folder = folder if folder.is_dir() else Path("/sys/fs/cgroup")
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        cached = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(encoding="ascii"), re.MULTILINE)
        return None if limit == "max" else int(limit) - used + int(cached[1] if cached else 0)
    except (OSError, ValueError):
        return None


def _free_in_address_space() -> int | None:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return None if limit == resource.RLIM_INFINITY else limit - pages * resource.getpagesize()
    except (ImportError, OSError):
        return None


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None


@cache
def _own_start(pid: int) -> int:
    return _start_of(pid) or 0


@cache
def _node() -> str:
    """Name the host and, on Linux, the namespace in which process ids count."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        namespace = Path()
    return sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]


def _start_of(pid: int) -> int | None:
    """Return when a process began, in ticks since the machine started; -1: it has ended; None: unknown."""
    try:
        # The second field is the program's name in brackets, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])
