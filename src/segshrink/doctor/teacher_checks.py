"""Findings about a teacher: its score and what explains it, NaN, probabilities for logits, noise, confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from segshrink.config import TeacherSource, adapter_of
from segshrink.doctor.cause_search import CLEAR_GAIN, POOR_LEVEL, Cause
from segshrink.doctor.findings import Finding, RecipeTerms, Severity, percent, recipe_line, rounded
from segshrink.doctor.input_variants import InputVariant, Scaling, unchanged
from segshrink.doctor.sample import Sample, gain, level, majority_iou, mean_iou
from segshrink.doctor.teacher_outputs import CERTAIN, TeacherOutputs
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher
from segshrink.teachers.teacher import TILE
from segshrink.teachers.torch_teacher import AdaptedNetwork

# Below this share of the way from the most frequent class everywhere to perfect a teacher can't teach.
_BAD_LEVEL = 0.1
# Temperatures that are advised where the recipe's leaves a teacher too certain.
_TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
# Share of the pixels that may be certain before soft targets say no more than labels, and that should be at most.
_TOO_CERTAIN, _WELL_CERTAIN = 0.95, 0.8
# Mean entropy as a share of the largest possible one.
_TOO_UNCERTAIN = 0.97
# Change of an answer, relative to the logits' deviation, beyond what rounding explains.
LEAST_CHANGE = 0.02

_WHY = {
    "scaling": "A network is right only about pixel values like those it was trained on.",
    "order": "It was trained on images whose red and blue are exchanged; colors mislead it.",
    "statistics": "The running averages of its batch normalization don't fit its weights. The batch's own statistics "
    "undo any scaling of pixels as well, but here those of the first layer alone don't help.",
    "size": "It was trained on objects of another size in pixels.",
    "surroundings": "It needs to see more around an object than a crop shows.",
    "shift": "What the student learns about a pixel belongs to another one.",
    "classes": "The student is taught that one class is another.",
}
_WHY_RUNNING = "It is in train mode: batch normalization averages over whatever images stand beside each other."
_WHY_SUSPECTED = " Batch statistics undo any scaling, and those of the first layer alone help as much."
_FIX_RUNNING = "call .eval() on the network where it is built, and don't override its train()"
_FIX_BATCH = (
    "measure its running averages anew: torch.optim.swa_utils.update_bn(batches of your images, model), then save it"
)


@dataclass(frozen=True)
class TeacherEntry:
    """A teacher and its entry in the recipe.

    Attributes:
        teacher: The opened teacher.
        sources: All teachers' entries.
        position: Which of them it is.
        terms: What the student is to learn from it.
        bands: Bands of the images.
    """

    teacher: Teacher
    sources: Sequence[TeacherSource]
    position: int
    terms: RecipeTerms
    bands: int = 3

    @property
    def source(self) -> TeacherSource:
        """Its own entry."""
        return self.sources[self.position]

    @property
    def label(self) -> str:
        """How findings call it."""
        return f"teacher {self.teacher.name}" if len(self.sources) > 1 else "teacher"

    @property
    def base(self) -> InputVariant:
        """How the recipe uses it."""
        scales = self.terms.distillation.scales
        return InputVariant(size=scales[0] if len(scales) == 1 else 1.0)

    @property
    def inner(self) -> Scaling:
        """What is done to pixels before its network gets them, as far as that is known."""
        module = self.teacher.module
        network = module.network if isinstance(module, AdaptedNetwork) else module
        if isinstance(network, SegmentationModel):
            normalization = network.description.normalization
        else:
            normalization = adapter_of(self.source).normalization(self.bands)
        return Scaling("", normalization.mean, normalization.std)

    def line(self, **changes: Any) -> str:
        """Return the recipe's line of teachers with these fields of its own entry changed."""
        return self.line_with(self.source.model_copy(update=changes))

    def line_with(self, source: TeacherSource) -> str:
        """Return the recipe's line of teachers with another source in its own place."""
        sources = list(self.sources)
        sources[self.position] = source
        dumped = [source.model_dump(mode="json", exclude_unset=True) for source in sources]
        return recipe_line("distillation.teachers", dumped)


def score_finding(entry: TeacherEntry, answers: TeacherOutputs, cause: Cause | None) -> Finding:
    """Return how well a teacher does and what explains it."""
    if not answers.matrices.any():
        message = f"the {entry.label} can't be judged: no labeled pixel is of a class that it knows"
        fix = "label a few validation images of these classes"
        return Finding("unjudged", "warning", "teacher", message, "Nobody knows whether it is right.", fix)
    before, majority, crops = mean_iou(answers.matrices), majority_iou(answers.matrices), len(answers.matrices)
    numbers = {"mean_iou": before, "majority_mean_iou": majority}
    score = f"the {entry.label} scores {before:.2f} mIoU on {crops} crop{'s' if crops > 1 else ''}"
    if cause is not None:
        return _cause_finding(entry, answers, cause, score, numbers)
    if answers.constant:
        message = f"{score}: it answers the same everywhere, whatever the image"
        fix = "check its weights: they may not have been loaded"
        return Finding("constant", "fault", "teacher", message, "There is nothing to learn from it.", fix, numbers)
    most_frequent = entry.teacher.classes.names[int(answers.matrices.sum(axis=(0, 2)).argmax())]
    message = f"{score} (naming {most_frequent} everywhere: {majority:.2f})"
    if level(answers.matrices) >= POOR_LEVEL:
        return Finding("score", "fine", "teacher", message, numbers=numbers)
    severity: Severity = "fault" if level(answers.matrices) < _BAD_LEVEL else "warning"
    why = (
        "No other pixel scaling, band or class order, image size or batch statistics explain it, so it doesn't know "
        "these images."
    )
    fix = "train the teacher on these images, or choose another: segshrink train RECIPE"
    return Finding("weak", severity, "teacher", message, why, fix, numbers)


def output_findings(entry: TeacherEntry, answers: TeacherOutputs, *, misled: bool) -> list[Finding]:
    """Return what is wrong with the answers themselves, whatever their score.

    Args:
        entry: The teacher.
        answers: What it answered.
        misled: Whether it sees these images in a wrong way, or doesn't know them; how sure it is says nothing then.
    """
    low, high = answers.extremes
    numbers = {"lowest": low, "highest": high, "not_finite": answers.not_finite}
    findings = []
    if answers.not_finite:
        message = f"{percent(answers.not_finite)} of the {entry.label}'s answers are NaN or infinite"
        why = "One such pixel makes the student's loss NaN."
        fix = "run the teacher in 32 bits (bf16 and fp16 overflow), and look for damaged weights"
        findings.append(Finding("not-finite", "fault", "teacher", message, why, fix, numbers))
    if answers.probabilities and not answers.constant:
        highest = answers.highest_probability
        message = f"the {entry.label} answers with probabilities ({low:.2f} to {high:.2f}), which are taken as logits"
        why = (
            f"The softmax is applied twice: no class ever gets more than {highest:.2f} on average and the student "
            "learns next to nothing from it."
        )
        fix = entry.line(adapter=adapter_of(entry.source).model_copy(update={"output": "probabilities"}))
        numbers["highest_probability"] = highest
        findings.append(Finding("probabilities", "fault", "teacher", message, why, fix, numbers))
    elif not misled and not answers.constant and len(answers.finite):
        findings += _certainty_findings(entry, answers)
    return findings


def noise_findings(entry: TeacherEntry, noise: Mapping[str, float]) -> list[Finding]:
    """Return whether an answer changes with chance ("random"), or with the images beside it ("batch")."""
    fix = "call .eval() on the network where it is built or before it is exported"
    if noise["random"] > LEAST_CHANGE:
        message = f"the {entry.label}'s answer about the same crop changes from one time to the next"
        why = "Its dropout or another random layer is on, so that its answers are noisy."
        return [Finding("random", "fault", "teacher", message, why, fix, {"change": noise["random"]})]
    if noise["batch"] > LEAST_CHANGE:
        message = f"the {entry.label}'s answer about a crop depends on the other crops of its batch"
        why = "Its batch normalization is in train mode, so that what it teaches depends on chance."
        return [Finding("batch", "fault", "teacher", message, why, fix, {"change": noise["batch"]})]
    return []


def knowledge_findings(entry: TeacherEntry, sample: Sample) -> list[Finding]:
    """Return which classes the teacher knows nothing about, with their share of the labeled pixels."""
    names = entry.teacher.classes.names
    missing = [index for index in range(len(names)) if index not in entry.teacher.known]
    if not missing:
        return []
    counts = torch.bincount(sample.targets.flatten(), minlength=256)[: len(names)]
    share = float(counts[missing].sum() / counts.sum().clamp_min(1))
    unknown = [names[index] for index in missing]
    message = f"the {entry.label} knows nothing about {', '.join(unknown)} ({percent(share)} of the labeled pixels)"
    numbers = {"classes": unknown, "share": share}
    if share <= 0.5:
        return [Finding("unknown-classes", "fine", "teacher", message, numbers=numbers)]
    why = "About these classes the student learns from labels alone."
    fix = "name what stands for them: distillation.teachers: [{source: ..., classes: {Name here: Name there}}]"
    return [Finding("unknown-classes", "warning", "teacher", message, why, fix, numbers)]


def _certainty_findings(entry: TeacherEntry, answers: TeacherOutputs) -> list[Finding]:
    temperature, entropy = entry.terms.temperature, answers.entropy
    share = answers.certain(temperature)
    numbers = {"entropy": entropy, "certain": share}
    if share > _TOO_CERTAIN:
        message = (
            f"at temperature {temperature:g} the {entry.label} gives one class more than {CERTAIN:g} in "
            f"{percent(share)} of the pixels"
        )
        why = "Soft targets that hard say no more than labels do."
        hotter = [other for other in _TEMPERATURES if other > temperature]
        better = next((other for other in hotter if answers.certain(other) <= _WELL_CERTAIN), _TEMPERATURES[-1])
        fix = entry.terms.temperature_line(better)
        return [Finding("certain", "warning", "teacher", message, why, fix, numbers)]
    if entropy > _TOO_UNCERTAIN:
        message = (
            f"the {entry.label}'s probabilities are almost equal for all classes (entropy {percent(entropy)} of the "
            "largest possible)"
        )
        why = "Soft targets that flat hardly tell one class from another."
        return [Finding("uncertain", "warning", "teacher", message, why, entry.terms.temperature_line(0.5), numbers)]
    return []


def _cause_finding(
    entry: TeacherEntry, answers: TeacherOutputs, cause: Cause, score: str, numbers: Mapping[str, Any]
) -> Finding:
    gained, sure = gain(answers.matrices, cause.matrices)
    left_poor = level(cause.matrices) < POOR_LEVEL
    likely = ": the likely cause, though that alone doesn't make it good" if left_poor else ""
    why = dict(_WHY)
    if cause.variant.statistics == "running":
        why["statistics"] = _WHY_RUNNING
    if cause.variant.scaling is None:
        why["scaling"] += _WHY_SUSPECTED
    return Finding(
        " and ".join(cause.kinds),
        "fault" if gained >= CLEAR_GAIN or level(answers.matrices) < POOR_LEVEL else "warning",
        "teacher",
        f"{score}, but {cause.score:.2f} {_described_use(entry, cause)}{likely}",
        " ".join(why[kind] for kind in cause.kinds),
        "\n".join(_fixes(entry, cause)),
        {**numbers, "fixed_mean_iou": cause.score, "gain": gained, "sure_gain": sure, "order": cause.order},
    )


def _fixes(entry: TeacherEntry, cause: Cause) -> list[str]:
    """Return the recipe lines, or advice, that make the teacher be used as the cause says."""
    variant, changed = cause.variant, changed_source(entry, cause)
    larger = ("crops.size", TILE) if entry.terms.learns_features else ("distillation.teacher_cache", True)
    advice = {
        "size": recipe_line("distillation.scales", [variant.size]),
        "surroundings": recipe_line(*larger),
        "shift": "look for a border that is cut off or added on one side only, in the network or in the masks",
        "statistics": _FIX_RUNNING if variant.statistics == "running" else _FIX_BATCH,
    }
    if variant.scaling is None:
        advice["scaling"] = "give the mean and std that it was trained with, in its adapter: {mean: ..., std: ...}"
    return [
        *([] if changed is None else [entry.line_with(changed)]),
        *(advice[kind] for kind in cause.kinds if kind in advice),
    ]


def changed_source(entry: TeacherEntry, cause: Cause) -> TeacherSource | None:
    """Return a teacher's source with the scaling, band and class order of a cause; None where it names none."""
    changes = dict[str, Any]()
    if adapter := _adapter_changes(entry, cause.variant):
        changes["adapter"] = adapter_of(entry.source).model_copy(update=adapter)
    if cause.order is not None:
        renamed = entry.source.classes
        changes["classes"] = renamed | {name: renamed.get(other, other) for name, other in _moved(entry, cause.order)}
    return entry.source.model_copy(update=changes) if changes else None


def _adapter_changes(entry: TeacherEntry, variant: InputVariant) -> dict[str, Any]:
    """Return the fields of a teacher's adapter that build a variant's scaling and band order in."""
    reverse = (adapter_of(entry.source).order == "bgr") != (variant.order == "bgr")
    changes: dict[str, Any] = {}
    if variant.order == "bgr":
        changes["order"] = "bgr" if reverse else "rgb"
    if variant.scaling is not None:
        # The adapter's numbers replace what is done to pixels now, before the network gets them.
        scaling = (variant.scaling.reversed() if reverse else variant.scaling).then(entry.inner)
        if scaling.like(unchanged(entry.bands)):
            scaling = unchanged(entry.bands)
        for name, values in (("mean", scaling.mean), ("std", scaling.std)):
            numbers = [rounded(value, 6) for value in values]
            changes[name] = numbers[0] if len(set(numbers)) == 1 else numbers
    return changes


def _described_use(entry: TeacherEntry, cause: Cause) -> str:
    """Say how the teacher was used, such as "with red and blue exchanged"."""
    variant = cause.variant
    running = variant.statistics == "running"
    uses = {
        "order": "with red and blue exchanged",
        "statistics": f"with {'its running averages' if running else 'statistics of the batch'} in batch normalization",
        "size": f"on images {variant.size / entry.base.size:g} times as large",
        "surroundings": "when it sees whole tiles around the crops",
        "shift": f"with its answers moved {variant.shift[0]} pixels down and {variant.shift[1]} to the right",
    }
    uses["scaling"] = uses["statistics"]  # suspected
    if variant.scaling is not None:
        scaling = variant.scaling.then(entry.inner)
        mean, std = ("/".join(dict.fromkeys(f"{n:.3g}" for n in values)) for values in (scaling.mean, scaling.std))
        uses["scaling"] = f"with {scaling.name} (mean {mean}, std {std})"
    if cause.order is not None:
        moved = ", ".join(f"{other} means {name}" for name, other in _moved(entry, cause.order))
        uses["classes"] = f"in another class order ({moved})"
    return " and ".join(uses[kind] for kind in cause.kinds)


def _moved(entry: TeacherEntry, order: Sequence[int]) -> list[tuple[str, str]]:
    """Return (class, what the teacher calls it) for each class that it calls by another's name."""
    names = entry.teacher.classes.names
    return [(names[place], names[other]) for place, other in enumerate(order) if place != other]
