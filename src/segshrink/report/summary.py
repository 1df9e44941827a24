"""What the page says in words: title, the honest sentence, its caveat, and notices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from segshrink import formatting
from segshrink.report.collect import Profile, Run
from segshrink.report.selection import comparable, first, focus, labels, same_machine, timed_together

FEW_IMAGES = 10
# The 95th percentile is no more than so many medians, and times of equal networks differ by no more, undisturbed.
UNSTEADY, SAME_TIME = 2.0, 1.2
LEAKING = (
    "Judged pixels lie beside training pixels of the same images, so these scores are too good. "
    "Use them only beside numbers that were published the same way."
)


@dataclass(frozen=True)
class Notice:
    """Something the reader has to know; ``loud`` ones stand out."""

    title: str
    text: str
    loud: bool = False


@dataclass(frozen=True)
class Headline:
    """Title, one sentence that compares, and what it doesn't show."""

    title: str
    sentence: str
    caveat: str


def headline(runs: Sequence[Run]) -> Headline:
    """Say what was compared and how it came out, with intervals."""
    main = focus(runs)
    evaluation = main.evaluation if main else None
    roles = [role for role in ("student", "control", "teacher") if first(runs, role)]
    what = formatting.listing(roles).capitalize() if len(roles) > 1 else runs[-1].name
    if main is None or evaluation is None:
        data = next((f" on {run.data}" for run in runs if run.data), "")
        return Headline(f"{what}{data}", "No run here has been evaluated yet, so there are no scores to compare.", "")
    students = [run for run in runs if run.role == "student" and comparable(run, main)]
    sentence = _over_seeds(runs, main) if len(students) > 1 else _one_result(runs, main)
    return Headline(f"{what} on {evaluation.data}", sentence, _caveat(main, first(runs, "control"), len(students)))


def _one_result(runs: Sequence[Run], main: Run) -> str:
    subject = "The student" if main.role == "student" else labels(runs)[runs.index(main)]
    text = f"{subject} reaches {_result(main, words=True)}"
    if main.role == "student":
        control = _against(main, first(runs, "control"), "its control, the same network trained without the teacher")
        teacher = _against(main, first(runs, "teacher"), "its teacher")
        text = ", and ".join(part for part in (f"{text}, {control}" if control else text, teacher) if part)
        text = text if control else text.replace(", and ", ", ", 1)
    return f"{text}."


def _over_seeds(runs: Sequence[Run], main: Run) -> str:
    """Say the mean and range of the students' and the controls' mIoU, beside the teacher's."""
    parts = []
    for role, name in (("student", "the student"), ("control", "its control"), ("teacher", "the teacher")):
        matching = [run for run in runs if run.role == role and comparable(run, main)]
        scores = [run.evaluation.scores.get("mean_iou") for run in matching if run.evaluation]
        values = [value for value in scores if value is not None]
        if len(values) > 1:
            mean = sum(values) / len(values)
            parts.append(f"{name} {mean:.3f} ({len(values)} runs from {min(values):.3f} to {max(values):.3f})")
        elif values:
            parts.append(f"{name} {_result(matching[0], words=False)}")
    return f"Mean IoU over runs: {formatting.listing(parts)}."


def notices(runs: Sequence[Run]) -> list[Notice]:
    """Return what limits the comparison: leaking split, dead classes, unfinished runs, unequal conditions."""
    found: list[Notice] = []
    named = list(zip(labels(runs), runs, strict=True))
    leaked = [label for label, run in named if run.evaluation and run.evaluation.leaking]
    if leaked:
        found.append(Notice("Leaking split", f"{LEAKING} Concerned: {formatting.listing(leaked)}.", loud=True))
    dead = [(label, run.role, list(run.evaluation.never_predicted)) for label, run in named if run.evaluation]
    texts = [f"{label} never predicts {formatting.listing(names)}" for label, _, names in dead if names]
    if texts:
        loud = any(names and role == "student" for _, role, names in dead)
        text = f"{'; '.join(texts)}; yet such pixels are in the truth."
        found.append(Notice("A class is never predicted", text, loud=loud))
    for label, run in named:
        if run.status and run.status != "finished":
            found.append(Notice("Not finished", f"The run of {label} is {run.status}; its numbers may still change."))
    main = focus(runs)
    others = [label for label, run in named if run is not main and run.evaluation and not comparable(run, main)]
    if others:
        text = f"{formatting.listing(others)} was judged on other data, classes or pixels; no differences are shown."
        found.append(Notice("Not comparable", text))
    return found + _unequal(runs) + speed_notices(runs)


def speed_notices(runs: Sequence[Run]) -> list[Notice]:
    """Return what makes latencies doubtful: a busy or unsteady machine, equal networks that differ, no turns."""
    timed = [
        (label, run.profile, run.profile.latency_median)
        for label, run in zip(labels(runs), runs, strict=True)
        if run.profile and run.profile.latency_median
    ]
    found: list[Notice] = []
    busy = [label for label, profile, _ in timed if profile.busy]
    if busy:
        most = formatting.percent(max(profile.load or 0.0 for _, profile, _ in timed))
        text = (
            f"Other programs took up to {most} of the cores while {formatting.listing(busy)} "
            f"{'was' if len(busy) == 1 else 'were'} timed, so latencies are too long and their ratios doubtful: "
            "measure again on a quiet machine (the same command with --resume)."
        )
        found.append(Notice("Busy machine", text, loud=True))
    for label, profile, median in timed:
        if profile.latency_p95 and profile.latency_p95 > UNSTEADY * median:
            text = (
                f"One in twenty runs of {label} took {formatting.milliseconds(profile.latency_p95)} or longer, "
                f"the median {formatting.milliseconds(median)}: something disturbed the measurement."
            )
            found.append(Notice("Unsteady times", text))
    found += [
        Notice(
            "Equal networks, unequal times",
            f"{one} and {other} are the same network, yet took {formatting.milliseconds(first_time)} and "
            f"{formatting.milliseconds(second_time)}: the difference is the machine’s.",
        )
        for (one, first_profile, first_time), (other, second_profile, second_time) in combinations(timed, 2)
        if _same_network(first_profile, second_profile)
        and max(first_time, second_time) > SAME_TIME * min(first_time, second_time)
    ]
    if not timed_together([profile for _, profile, _ in timed]):
        text = f"{formatting.listing([label for label, _, _ in timed])} were timed one after the other, not in turns."
        found.append(Notice("Not timed in turns", f"{text} Ratios of latencies may be the machine’s doing."))
    return found


def _same_network(one: Profile, other: Profile) -> bool:
    """Whether two models cost the same, and were measured alike."""
    costs = [(p.parameters, p.macs, p.machine, p.threads, p.input[-2:]) for p in (one, other)]
    return costs[0] == costs[1] and None not in costs[0][:2]


def _unequal(runs: Sequence[Run]) -> list[Notice]:
    found: list[Notice] = []
    student, control, teacher = (first(runs, role) for role in ("student", "control", "teacher"))
    if student and control and student.steps and control.steps and student.steps != control.steps:
        text = f"The student trained for {student.steps:,} steps, its control for {control.steps:,}."
        found.append(Notice("Unequal training", text))
    if student and teacher and student.profile and teacher.profile and not same_machine(student, teacher):
        text = "Teacher and student were measured on different machines or settings; no speed ratio is shown."
        found.append(Notice("Different machines", text))
    return found


def _result(run: Run, *, words: bool) -> str:
    evaluation = run.evaluation
    if evaluation is None:
        return formatting.NOTHING
    value = formatting.score(evaluation.scores.get("mean_iou"))
    bounds = formatting.interval(evaluation.interval)
    if not words:
        return f"{value} ({bounds})" if bounds else value
    level = f"{formatting.percent(evaluation.level)} interval "
    return f"{value} mean IoU ({level}{bounds})" if bounds else f"{value} mean IoU"


def _against(main: Run, other: Run | None, name: str) -> str:
    if other is None or main.evaluation is None or other.evaluation is None or not comparable(main, other):
        return ""
    own, reference = main.evaluation.scores.get("mean_iou"), other.evaluation.scores.get("mean_iou")
    if own is None or reference is None:
        return ""
    difference = round(100 * (own - reference), 1)
    where = "above" if difference > 0 else "below" if difference < 0 else "level with"
    amount = "" if difference == 0 else f"{abs(difference):.1f} points "
    return f"{amount}{where} {name}, {_result(other, words=False)}"


def _caveat(main: Run, control: Run | None, students: int) -> str:
    evaluation = main.evaluation
    parts: list[str] = []
    if students < 2 and main.role == "student" and control and comparable(main, control):
        parts += [_overlap(main, control), _image_by_image(main, control)]
    if evaluation and evaluation.images < FEW_IMAGES:
        noun = "image was" if evaluation.images == 1 else "images were"
        parts.append(f"Only {evaluation.images} {noun} judged: take the interval as rough.")
    if evaluation and evaluation.leaking:
        parts.append("The split leaks, so every score here is too good.")
    return " ".join(part for part in parts if part)


def _overlap(main: Run, control: Run) -> str:
    own = main.evaluation.interval if main.evaluation else None
    other = control.evaluation.interval if control.evaluation else None
    if own is None or other is None:
        return "No interval was measured, so chance can't be told from a real difference."
    if own[0] <= other[1] and other[0] <= own[1]:
        return "The intervals of student and control overlap: this one run does not settle which is better."
    return "The intervals of student and control do not overlap."


def _image_by_image(main: Run, control: Run) -> str:
    if main.evaluation is None or control.evaluation is None:
        return ""
    others = {image.name: image.mean_iou for image in control.evaluation.per_image}
    pairs = [(image.mean_iou, others.get(image.name)) for image in main.evaluation.per_image]
    known = [(own, other) for own, other in pairs if own is not None and other is not None]
    if not known:
        return ""
    ahead = sum(own > other for own, other in known)
    return f"Image by image, the student is ahead of its control on {ahead} of {len(known)}."
