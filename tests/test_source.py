"""What the source itself must not hold, whatever it does on this machine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import segshrink

SOURCE = Path(segshrink.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
# What Windows' Python lacks; ``machine`` asks for it behind a test of the platform.
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {
        *("fork", "forkpty", "getloadavg", "geteuid", "getgid", "getpgid", "getuid", "killpg", "mkfifo"),
        *("nice", "O_DIRECT", "posix_fadvise", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "setsid"),
        *("statvfs", "sysconf", "uname", "wait", "waitpid"),
    },
    "signal": {
        *("alarm", "pthread_sigmask", "setitimer", "sigwait"),
        *("SIGALRM", "SIGBUS", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGSTOP", "SIGUSR1", "SIGUSR2"),
    },
}
POSIX_OPTIONS = {"preexec_fn", "pass_fds", "start_new_session", "process_group"}


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def posix_only(path: Path) -> list[str]:
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name in POSIX_MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if alias.name in POSIX_NAMES.get(node.module or "", ())]
            names += [node.module] if node.module in POSIX_MODULES else []
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [node.attr] if node.attr in POSIX_NAMES.get(node.value.id, ()) else []
        elif isinstance(node, ast.Call):
            names = [option.arg for option in node.keywords if option.arg in POSIX_OPTIONS]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if node.value.startswith(("/proc/", "/sys/", "/dev/", "/tmp/")) else []  # noqa: S108
        else:
            continue
        found += names
    return found


def test_what_only_posix_has_is_asked_for_in_one_place() -> None:
    assert len(FILES) > 100
    assert posix_only(SOURCE / "machine.py"), "this looks for what it should"
    assert {str(path): found for path in FILES if path.name != "machine.py" and (found := posix_only(path))} == {}


@pytest.mark.parametrize("text", ["import fcntl", "from os import fork", "os.killpg(1, 2)", "run(x, preexec_fn=f)"])
def test_posix_is_found_however_it_is_asked_for(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text(text)
    assert posix_only(tmp_path / "a.py")


def test_whoever_catches_anything_says_why_or_raises_it_again() -> None:
    silent = []
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in nodes(path):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            raised_again = any(isinstance(part, ast.Raise) and part.exc is None for part in ast.walk(node))
            if broad and not raised_again and "  # " not in lines[node.lineno - 1]:
                silent.append(f"{path}:{node.lineno}")
    assert silent == []
