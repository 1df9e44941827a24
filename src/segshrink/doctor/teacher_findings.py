"""What was seen of a teacher, put into words with the line that mends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segshrink.classes import ClassMap
from segshrink.config import TeacherSource
from segshrink.doctor.cause_search import Cause
from segshrink.doctor.findings import Finding
from segshrink.doctor.measuring import BAD_LEVEL, POOR_LEVEL, level
from segshrink.doctor.plan import Plan
from segshrink.doctor.remedies import mended_source, recipe_line, teachers_line, with_output
from segshrink.doctor.scaling import Scaling
from segshrink.doctor.teacher_checks import CERTAIN, LEAST_CHANGE, TEMPERATURES, Answered
from segshrink.doctor.input_variants import Trial
from segshrink.teachers import Teacher
from segshrink.teachers.teacher import TILE

_FAULT_GAIN = 0.1
# Share of the pixels that may be certain before soft targets say no more than labels, and that should be at most.
_TOO_CERTAIN, _WELL_CERTAIN = 0.95, 0.8
_TOO_UNCERTAIN = 0.97
_CONSTANT = 1e-4

_WHY: Mapping[str, str] = {
    "scaling": "A network is right only about pixel values like those it was trained on.",
    "order": "It was trained on images whose red and blue are exchanged; colours mislead it.",
    "statistics": "Its batch normalisation doesn't scale features as in training.",
    "size": "It was trained on objects of another size in pixels.",
    "shift": "What the student learns about a pixel belongs to another one.",
    "surroundings": "It needs to see more around an object than a crop shows.",
    "classes": "The student is taught that one class is another.",
}


@dataclass(frozen=True)
class Named:
    """A teacher and its place in the recipe.

    Attributes:
        teacher: The opened teacher.
        sources: All teachers' entries.
        position: Which of them it is.
    """

    teacher: Teacher
    sources: Sequence[TeacherSource]
    position: int

    @property
    def label(self) -> str:
        """How findings call it."""
        return f"teacher {self.teacher.name}" if len(self.sources) > 1 else "teacher"


def output_findings(named: Named, seen: Answered, plan: Plan, *, misled: bool) -> list[Finding]:
    """Return what is wrong with the answers themselves, whatever their score.

    Args:
        named: The teacher.
        seen: What it answered.
        plan: What the student is to learn from it.
        misled: Whether it sees these images in a wrong way, or doesn't know them; how sure it is says nothing then.
    """
    found = []
    numbers = {"lowest": seen.lowest, "highest": seen.highest, "not_finite": seen.not_finite}
    if seen.not_finite:
        found.append(
            Finding(
                "not-finite", "fault", "teacher",
                f"{_share(seen.not_finite)} of the {named.label}'s answers are NaN or infinite",
                "One such pixel makes the student's loss NaN.",
                "run the teacher in 32 bits (bf16 and fp16 overflow), and look for damaged weights",
                numbers,
            )
        )  # fmt: skip
    if seen.probabilities and not _constant(seen):
        entry = with_output(named.sources[named.position], "probabilities")
        sums = "summing to one" if seen.sums_to_one else "a sigmoid for each class"
        found.append(
            Finding(
                "probabilities", "fault", "teacher",
                f"the {named.label} answers with probabilities ({seen.lowest:.2f} to {seen.highest:.2f}, {sums}), "
                "which are taken as logits",
                f"The softmax is applied twice: no class ever gets more than {seen.highest_probability:.2f} on average "
                "and the student learns next to nothing from it.",
                teachers_line(named.sources, named.position, entry),
                numbers | {"highest_probability": seen.highest_probability},
            )
        )  # fmt: skip
    elif not misled and not _constant(seen):
        found += _certainty(named, seen, plan)
    return found


def steadiness_findings(named: Named, noise: Mapping[str, float]) -> list[Finding]:
    """Return whether an answer changes with chance ("random"), or with the images beside it ("batch")."""
    random, batch = noise["random"], noise["batch"]
    remedy = "call .eval() on the network where it is built or before it is exported"
    if random > LEAST_CHANGE:
        seen = f"the {named.label}'s answer about the same crop changes from one time to the next"
        why = "Its dropout or another random layer is on, so that its answers are noisy."
        return [Finding("random", "fault", "teacher", seen, why, remedy, {"change": random})]
    if batch > LEAST_CHANGE:
        seen = f"the {named.label}'s answer about a crop depends on the other crops of its batch"
        why = "Its batch normalisation is in train mode, so that what it teaches depends on chance."
        return [Finding("batch", "fault", "teacher", seen, why, remedy, {"change": batch})]
    return []


def score_finding(
    named: Named,
    seen: Answered,
    cause: Cause | None,
    tried: Mapping[str, float],
    *,
    base: Trial,
    plan: Plan,
    scaling: Scaling,
) -> Finding:
    """Return how well the teacher does and what explains it.

    Args:
        named: The teacher.
        seen: What it answered.
        cause: What explains its score.
        tried: mIoU of the best single treatment of each kind that looked promising.
        base: How it was used.
        plan: What the student is to learn from it.
        scaling: What is done to pixels before its network gets them, as far as that is known.
    """
    classes = named.teacher.classes
    if not seen.judged:
        unseen = f"the {named.label} can't be judged: no labelled pixel is of a class that it knows"
        return Finding("unjudged", "warning", "teacher", unseen, "Nobody knows whether it is right.",
                       "label a few validation images of these classes")  # fmt: skip
    truth = seen.matrices.sum(axis=(0, 2))
    majority = classes.names[int(truth.argmax())]
    crops = f"{len(seen.matrices)} crop{'s' if len(seen.matrices) > 1 else ''}"
    score = f"the {named.label} scores {seen.mean_iou:.2f} mIoU on {crops}"
    numbers = {"mean_iou": seen.mean_iou, "majority_mean_iou": seen.majority}
    if cause is not None:
        fault = cause.gain >= _FAULT_GAIN or seen.level < POOR_LEVEL
        poor = level(cause.after, seen.majority) < POOR_LEVEL
        return Finding(
            " and ".join(cause.families),
            "fault" if fault else "warning",
            "teacher",
            f"{score}, but {cause.after:.2f} {_treatment(cause, base, classes, scaling)}"
            + (": the likely cause, though that alone doesn't make it good" if poor else ""),
            " ".join(_why(family, cause) for family in cause.families),
            "\n".join(_lines(named, cause, base, plan, scaling)),
            numbers | _cause_numbers(cause),
        )
    if _constant(seen):
        seen_text = f"the {named.label} answers the same everywhere, whatever the image ({score.split(' scores ')[1]})"
        return Finding("constant", "fault", "teacher", seen_text, "There is nothing to learn from it.",
                       "check its weights: they may not have been loaded", numbers)  # fmt: skip
    if seen.level < POOR_LEVEL:
        return Finding(
            "weak",
            "fault" if seen.level < BAD_LEVEL else "warning",
            "teacher",
            f"{score}; naming {majority} everywhere would score {seen.majority:.2f}",
            "Other pixel scalings, band and class orders, image sizes and batch statistics "
            f"{_no_better(seen, tried)}, so it doesn't know these images.",
            "train the teacher on these images, or choose another: segshrink train RECIPE",
            numbers | {"alone": dict(tried)},
        )
    return Finding("score", "fine", "teacher", f"{score} (naming {majority} everywhere: {seen.majority:.2f})",
                   numbers=numbers)  # fmt: skip


def knowledge_finding(named: Named, targets_of_classes: Sequence[int], classes: ClassMap) -> Finding | None:
    """Return which classes the teacher knows nothing about, with their share of the labelled pixels."""
    missing = [index for index in range(len(classes)) if index not in named.teacher.known]
    if not missing:
        return None
    share = sum(targets_of_classes[index] for index in missing) / max(sum(targets_of_classes), 1)
    names = ", ".join(classes.names[index] for index in missing)
    return Finding(
        "unknown-classes",
        "warning" if share > 0.5 else "fine",
        "teacher",
        f"the {named.label} knows nothing about {names} ({_share(share)} of the labelled pixels)",
        "About these classes the student learns from labels alone." if share > 0.5 else "",
        "name what stands for them: distillation.teachers: [{source: ..., classes: {Name here: Name there}}]"
        if share > 0.5
        else "",
        {"classes": [classes.names[index] for index in missing], "share": share},
    )


def _certainty(named: Named, seen: Answered, plan: Plan) -> list[Finding]:
    numbers = {"entropy": seen.entropy, "certain": {f"{key:g}": share for key, share in seen.certain.items()}}
    temperature = plan.temperature
    share = seen.certain.get(temperature, seen.certain[1.0])
    if share > _TOO_CERTAIN:
        better = next((t for t in TEMPERATURES if t > temperature and seen.certain[t] <= _WELL_CERTAIN), None)
        return [
            Finding(
                "certain", "warning", "teacher",
                f"at temperature {temperature:g} the {named.label} gives one class more than {CERTAIN:g} in "
                f"{_share(share)} of the pixels",
                "Soft targets that hard say no more than labels do.",
                plan.temperature_line(better or TEMPERATURES[-1]),
                numbers,
            )
        ]  # fmt: skip
    if seen.entropy > _TOO_UNCERTAIN:
        return [
            Finding(
                "uncertain", "warning", "teacher",
                f"the {named.label}'s probabilities are almost equal for all classes (entropy {_share(seen.entropy)} "
                "of the largest possible)",
                "Soft targets that flat hardly tell one class from another.",
                plan.temperature_line(0.5),
                numbers,
            )
        ]  # fmt: skip
    return []


def _cause_numbers(cause: Cause) -> dict[str, Any]:
    return {
        "mended_mean_iou": cause.after,
        "gain": cause.gain,
        "sure_gain": cause.sure_gain,
        "alone": dict(cause.alone),
        "order": cause.order,
    }


def _lines(named: Named, cause: Cause, base: Trial, plan: Plan, scaling: Scaling) -> list[str]:
    source = named.sources[named.position]
    trial = cause.trial
    lines = []
    if trial.scaling is not None or trial.reverse or cause.order is not None:
        mended = mended_source(
            source,
            trial=trial,
            scaling=scaling,
            order=cause.order,
            classes=named.teacher.classes,
        )
        lines.append(teachers_line(named.sources, named.position, mended))
    if trial.zoom != base.zoom:
        lines.append(recipe_line("distillation.scales", [trial.zoom]))
    if trial.surroundings:
        larger = ("crops.size", TILE) if plan.learns_features else ("distillation.teacher_cache", True)
        lines.append(recipe_line(*larger))
    if any(trial.shift):
        lines.append("look for a border that is cut off or added on one side only, in the network or in the masks")
    if "scaling" in cause.families and trial.scaling is None:
        lines.append("give the mean and std that it was trained with, in its adapter: {mean: ..., std: ...}")
    if "statistics" not in cause.families:
        return lines
    if trial.statistics == "running":
        return [*lines, "call .eval() on the network where it is built, and don't override its train()"]
    return [
        *lines,
        "measure its running averages anew: torch.optim.swa_utils.update_bn(batches of your images, model), then save "
        "it",
    ]


def _treatment(cause: Cause, base: Trial, classes: ClassMap, inner: Scaling) -> str:
    """Say what was done, such as "with red and blue exchanged"."""
    trial = cause.trial
    parts = []
    if trial.scaling is not None:
        whole = trial.scaling.then(inner)
        numbers = ", ".join(f"{word} {_numbers(values)}" for word, values in (("mean", whole.mean), ("std", whole.std)))
        parts.append(f"with {trial.scaling.name}" + (f" ({numbers})" if trial.scaling.fitted else ""))
    if trial.reverse:
        parts.append("with red and blue exchanged")
    if trial.statistics is not None:
        whose = "its running averages" if trial.statistics == "running" else "the batch's own statistics"
        parts.append(f"with {whose} in batch normalisation")
    if trial.zoom != base.zoom:
        factor = trial.zoom / base.zoom
        parts.append(f"on images enlarged {factor:g} times" if factor > 1 else f"on images reduced to {factor:g}")
    if trial.surroundings:
        parts.append("when it sees whole tiles around the crops")
    if any(trial.shift):
        parts.append(f"with its answers moved {trial.shift[0]} pixels down and {trial.shift[1]} to the right")
    if cause.order is not None:
        moved = [f"{classes.names[j]} means {classes.names[i]}" for i, j in enumerate(cause.order) if i != j]
        parts.append(f"in another class order ({', '.join(moved)})")
    return " and ".join(parts)


def _numbers(values: Sequence[float]) -> str:
    """Return one number where all bands have the same."""
    return "/".join(dict.fromkeys(f"{value:.3g}" for value in values))


def _no_better(seen: Answered, tried: Mapping[str, float]) -> str:
    """Say how little the treatments bring."""
    family = max(tried, key=lambda name: tried[name], default="")
    if not family or tried[family] < seen.mean_iou + 0.005:
        return "do no better"
    return f"reach {tried[family]:.2f} at most ({family})"


def _why(family: str, cause: Cause) -> str:
    if family == "statistics" and cause.trial.statistics == "running":
        return "It is in train mode: batch normalisation averages over whatever images stand beside each other."
    if family == "statistics":
        return (
            "The running averages of its batch normalisation don't fit its weights. The batch's own statistics undo "
            "any scaling of pixels as well, but here those of the first layer alone don't help."
        )
    if family == "scaling" and cause.batch is not None:
        return (
            f"{_WHY[family]} Batch statistics, which undo any scaling, bring it to {cause.batch:.2f}: what it was "
            "trained with is yet another scaling."
        )
    return _WHY[family]


def _constant(seen: Answered) -> bool:
    return seen.variation < _CONSTANT


def _share(value: float) -> str:
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"
