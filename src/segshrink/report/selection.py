"""Which run is which: labels, the run a page is about, and which runs may be compared."""

from __future__ import annotations

from collections.abc import Sequence

from segshrink.report.collect import Profile, Run


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a short, unique name for each run: its role, with its name where several share a role."""
    texts: list[str] = []
    for run in runs:
        alone = sum(other.role == run.role for other in runs) == 1
        role = run.role.capitalize()
        texts.append(run.name if run.role == "model" else role if alone else f"{role} {run.name}")
    return [
        text if texts.count(text) == 1 else f"{text} ({texts[: place + 1].count(text)})"
        for place, text in enumerate(texts)
    ]


def focus(runs: Sequence[Run]) -> Run | None:
    """Return the run the page is about: the first evaluated student, else the last evaluated run."""
    evaluated = [run for run in runs if run.evaluation]
    return next((run for run in evaluated if run.role == "student"), evaluated[-1] if evaluated else None)


def first(runs: Sequence[Run], role: str) -> Run | None:
    """Return the first run of ``role``, evaluated ones before others."""
    matching = [run for run in runs if run.role == role]
    return next((run for run in matching if run.evaluation), matching[0] if matching else None)


def comparable(one: Run | None, other: Run | None) -> bool:
    """Whether two runs were judged on the same split of the same data with the same classes and pixels."""
    if one is None or other is None or one.evaluation is None or other.evaluation is None:
        return False
    a, b = one.evaluation, other.evaluation
    same_classes = [entry.name for entry in a.classes] == [entry.name for entry in b.classes]
    return same_classes and (a.data, a.split, a.images, a.pixels) == (b.data, b.split, b.images, b.pixels)


def same_machine(one: Run | None, other: Run | None) -> bool:
    """Whether two profiles were measured alike: same processor, threads and image size."""
    if one is None or other is None or one.profile is None or other.profile is None:
        return False
    a, b = one.profile, other.profile
    return (a.machine, a.threads, a.input[-2:]) == (b.machine, b.threads, b.input[-2:])


def speed_doubt(one: Run, other: Run) -> str:
    """Say why the ratio of two runs' latencies may be the machine's doing; empty where nothing speaks for that."""
    profiles = [run.profile for run in (one, other) if run.profile]
    if any(profile.busy for profile in profiles):
        return "on a busy machine"
    return "" if timed_together(profiles) else "not timed in turns"


def timed_together(profiles: Sequence[Profile]) -> bool:
    """Whether models were timed in turns; one alone was."""
    sessions = {profile.session for profile in profiles}
    return len(profiles) < 2 or (len(sessions) == 1 and None not in sessions)


def leaking(runs: Sequence[Run]) -> bool:
    """Whether any run was judged on a leaking split."""
    return any(run.evaluation is not None and run.evaluation.leaking for run in runs)
