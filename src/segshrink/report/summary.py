"""What the page says in words: title, the honest sentence, its caveat, and notices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from segshrink import formatting
from segshrink.report.runs import Run, comparable, first, focus, measured_with, same_machine, timed_together
from segshrink.run_records import ProfileRecord, Role

FEW_IMAGES = 10
# Points of mIoU by which a teacher must lead its student's control, where the student learns on labeled images alone;
# docs/teaching.md has the measurements behind them.
LEAST_LEAD = 4.0
# A validation loss that falls by more than this share in the last quarter of a training.
STILL_FALLING = 0.03
# Steps below which a training is short: Beyer 2022 (arXiv 2106.05237) trains students for tens of thousands.
SHORT = 2000
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
class Summary:
    """Title, one sentence that compares, and what it doesn't show."""

    title: str
    sentence: str
    caveat: str


def summarize(runs: Sequence[Run]) -> Summary:
    """Say what was compared and how it came out, with intervals."""
    main = focus(runs)
    compared: tuple[Role, ...] = ("student", "control", "teacher")
    roles = [role for role in compared if first(runs, role)]
    subject = formatting.listing([*roles]).capitalize() if len(roles) > 1 else runs[-1].name
    if main is None or main.evaluation is None:
        data = next((f" on {run.record.data}" for run in runs if run.record.data), "")
        return Summary(f"{subject}{data}", "No run here has been evaluated yet, so there are no scores to compare.", "")
    students = [run for run in runs if run.role == "student" and comparable(run, main)]
    sentence = _over_seeds(runs, main) if len(students) > 1 else _one_result(runs, main)
    caveat = " ".join(filter(None, _caveats(main, first(runs, "control"), first(runs, "teacher"), len(students))))
    return Summary(f"{subject} on {main.evaluation.data}", sentence, caveat)


def _one_result(runs: Sequence[Run], main: Run) -> str:
    if main.role != "student":
        teacher = _against(main, first(runs, "teacher"), "the teacher") if main.role == "control" else ""
        return f"{main.label} reaches {_result(main, words=True)}{f', {teacher}' if teacher else ''}."
    if main.judged_by_teacher:
        return f"The student agrees with its teacher to {_result(main, words=True)}."
    text = f"The student reaches {_result(main, words=True)}"
    control = _against(main, first(runs, "control"), "its control, the same network trained without the teacher")
    teacher = _against(main, first(runs, "teacher"), "its teacher")
    joint = ", and " if control else ", "
    return f"{text}{f', {control}' if control else ''}{f'{joint}{teacher}' if teacher else ''}."


def _over_seeds(runs: Sequence[Run], main: Run) -> str:
    """Say the mean and range of the students' and the controls' mIoU, beside the teacher's."""
    parts = []
    for role, name in (("student", "the student"), ("control", "its control"), ("teacher", "the teacher")):
        matching = [run for run in runs if run.role == role and comparable(run, main)]
        scores = [run.mean_iou for run in matching if run.mean_iou is not None]
        if len(scores) > 1:
            mean = sum(scores) / len(scores)
            parts.append(f"{name} {mean:.3f} ({len(scores)} runs from {min(scores):.3f} to {max(scores):.3f})")
        elif scores:
            parts.append(f"{name} {_result(matching[0], words=False)}")
    return f"Mean IoU over runs: {formatting.listing(parts)}."


def _result(run: Run, *, words: bool) -> str:
    """Write a run's mIoU with its interval; in ``words``, saying what they are."""
    value, evaluation = formatting.score(run.mean_iou), run.evaluation
    if evaluation is None or evaluation.interval is None:
        return f"{value} mean IoU" if words else value
    bounds = formatting.interval(run.interval)
    if not words:
        return f"{value} ({bounds})"
    return f"{value} mean IoU ({formatting.percent(evaluation.interval.level)} interval {bounds})"


def _against(main: Run, other: Run | None, name: str) -> str:
    """Say how far the main run is above another; empty where they can't be compared."""
    if other is None or main.mean_iou is None or other.mean_iou is None or not comparable(main, other):
        return ""
    difference = round(100 * (main.mean_iou - other.mean_iou), 1)
    where = "above" if difference > 0 else "below" if difference < 0 else "level with"
    amount = "" if difference == 0 else f"{abs(difference):.1f} points "
    return f"{amount}{where} {name}, {_result(other, words=False)}"


def _caveats(main: Run, control: Run | None, teacher: Run | None, students: int) -> Iterator[str]:
    if students < 2 and main.role == "student" and control and comparable(main, control):
        yield _overlap(main.interval, control.interval)
        yield _image_by_image(main, control)
        yield _what_held_back(main, control, teacher)
    if main.role == "control" and teacher and comparable(main, teacher):
        yield _little_to_distil(main, teacher)
    images = main.evaluation.images if main.evaluation else 0
    if images < FEW_IMAGES:
        yield f"Only {images} image{' was' if images == 1 else 's were'} judged: take the interval as rough."
    if main.judged_by_teacher:
        yield "No image has a mask, so nothing says how often both are wrong."
    if main.leaking:
        yield "The split leaks, so every score here is too good."


def _overlap(interval: tuple[float, float] | None, other: tuple[float, float] | None) -> str:
    if interval is None or other is None:
        return "No interval was measured, so chance can't be told from a real difference."
    if interval[0] <= other[1] and other[0] <= interval[1]:
        return "The intervals of student and control overlap: this one run does not settle which is better."
    return "The intervals of student and control do not overlap."


def _image_by_image(main: Run, control: Run) -> str:
    scores, others = (
        {image.name: image.mean_iou for image in run.evaluation.per_image if image.mean_iou is not None}
        for run in (main, control)
        if run.evaluation
    )
    shared = scores.keys() & others.keys()
    ahead = sum(scores[name] > others[name] for name in shared)
    return f"Image by image, the student is ahead of its control on {ahead} of {len(shared)}." if shared else ""


def _what_held_back(main: Run, control: Run, teacher: Run | None) -> str:
    """Say what a student that isn't above its control lacked: a teacher, unlabeled images, time; empty for others."""
    if main.mean_iou is None or control.mean_iou is None or main.mean_iou > control.mean_iou:
        return ""
    reasons = []
    if teacher is not None and teacher.mean_iou is not None and comparable(teacher, control):
        lead = 100 * (teacher.mean_iou - control.mean_iou)
        left = "which leaves little to copy" if lead < LEAST_LEAD else "little of which was copied"
        reasons.append(f"its teacher is {lead:.1f} points above the control, {left}")
    if not main.record.images.unlabeled:
        reasons.append("it saw no unlabeled images, which add most")
    if (fall := _last_fall(main)) > STILL_FALLING:
        steps = f"its {main.record.steps:,} steps" if main.record.steps else "the training"
        reasons.append(
            f"its validation loss still fell by {formatting.percent(fall)} in the last quarter of {steps}, so longer "
            "training may help"
        )
    elif main.record.steps and main.record.steps < SHORT:
        reasons.append(f"it learned for {main.record.steps:,} steps only, where students go on learning for thousands")
    return f"What may have held the student back: {'; '.join(reasons)}." if reasons else ""


def _little_to_distil(control: Run, teacher: Run) -> str:
    """Say why no student was trained, where its teacher hardly knows more than its control."""
    if control.mean_iou is None or teacher.mean_iou is None or control.mean_iou + LEAST_LEAD / 100 <= teacher.mean_iou:
        return ""
    return (
        "So there is little to distil: a student copies what its teacher knows and the control doesn't. A better "
        "teacher, one that is trained for longer, or unlabeled images may change that."
    )


def _last_fall(run: Run) -> float:
    """Return the share by which the loss on validation crops fell in the last quarter of a training."""
    losses = run.metrics["val/loss"][1] if "val/loss" in run.metrics else []
    before = losses[-(len(losses) // 4) - 1] if len(losses) >= 4 else 0.0
    return 1 - losses[-1] / before if before > 0 else 0.0


def notices(runs: Sequence[Run]) -> list[Notice]:
    """Return what limits the comparison: leaking split, dead classes, unfinished runs, unequal conditions."""
    return [*_doubts(runs), *_unequal(runs), *speed_notices(runs)]


def _doubts(runs: Sequence[Run]) -> Iterator[Notice]:
    if leaked := [run.label for run in runs if run.leaking]:
        yield Notice("Leaking split", f"{LEAKING} Concerned: {formatting.listing(leaked)}.", loud=True)
    if any(run.judged_by_teacher for run in runs):
        text = "No image has a mask: the truth here is what the teacher answers, so its own scores are perfect."
        yield Notice("Judged by agreement with the teacher", text, loud=True)
    dead = {run.label: list(run.evaluation.never_predicted) for run in runs if run.evaluation}
    if texts := [f"{label} never predicts {formatting.listing(names)}" for label, names in dead.items() if names]:
        loud = any(dead.get(run.label) and run.role == "student" for run in runs)
        text = f"{'; '.join(texts)}; yet such pixels are in the truth."
        yield Notice("A class is never predicted", text, loud=loud)
    for run in runs:
        if run.record.status in ("running", "stopped"):
            text = f"The run of {run.label} is {run.record.status}; its numbers may still change."
            yield Notice("Not finished", text)
    main = focus(runs)
    if others := [run.label for run in runs if run is not main and run.evaluation and not comparable(run, main)]:
        text = f"{formatting.listing(others)} was judged on other data, classes or pixels; no differences are shown."
        yield Notice("Not comparable", text)


def _unequal(runs: Sequence[Run]) -> Iterator[Notice]:
    student, control, teacher = first(runs, "student"), first(runs, "control"), first(runs, "teacher")
    if student and control:
        steps = student.record.steps, control.record.steps
        if steps[0] and steps[1] and steps[0] != steps[1]:
            text = f"The student trained for {steps[0]:,} steps, its control for {steps[1]:,}."
            yield Notice("Unequal training", text)
    if student and teacher and student.profile and teacher.profile and not same_machine(student, teacher):
        text = "Teacher and student were measured on different machines or settings; no speed ratio is shown."
        yield Notice("Different machines", text)


def speed_notices(runs: Sequence[Run]) -> Iterator[Notice]:
    """Yield what makes latencies doubtful: a busy or unsteady machine, equal networks that differ, no turns."""
    timed = [(run.label, run.profile, run.latency) for run in runs if run.profile and run.latency]
    if busy := [label for label, profile, _ in timed if profile.busy]:
        shares = [profile.load.others for _, profile, _ in timed if profile.load and profile.load.others is not None]
        yield Notice(
            "Busy machine",
            f"Other programs took up to {formatting.percent(max(shares, default=0.0))} of the cores while "
            f"{formatting.listing(busy)} {'was' if len(busy) == 1 else 'were'} timed, so latencies are too long and "
            "their ratios doubtful: measure again on a quiet machine (the same command with --resume).",
            loud=True,
        )
    for label, profile, median in timed:
        slow = profile.latency_ms.p95 if profile.latency_ms else None
        if slow and slow > UNSTEADY * median:
            yield Notice(
                "Unsteady times",
                f"One in twenty runs of {label} took {formatting.milliseconds(slow)} or longer, the median "
                f"{formatting.milliseconds(median)}: something disturbed the measurement.",
            )
    for (label, profile, time), (other_label, other_profile, other_time) in combinations(timed, 2):
        if _same_network(profile, other_profile) and max(time, other_time) > SAME_TIME * min(time, other_time):
            yield Notice(
                "Equal networks, unequal times",
                f"{label} and {other_label} are the same network, yet took {formatting.milliseconds(time)} and "
                f"{formatting.milliseconds(other_time)}: the difference is the machine’s.",
            )
    if not timed_together([profile for _, profile, _ in timed]):
        text = f"{formatting.listing([label for label, _, _ in timed])} were timed one after the other, not in turns."
        yield Notice("Not timed in turns", f"{text} Ratios of latencies may be the machine’s doing.")


def _same_network(profile: ProfileRecord, other: ProfileRecord) -> bool:
    """Whether two models cost the same, and were measured alike."""
    costs, other_costs = (profile.parameters, profile.macs), (other.parameters, other.macs)
    return costs == other_costs and None not in costs and measured_with(profile) == measured_with(other)
