"""The balance of a recipe's terms: how large each one's share of the student's gradient is."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segshrink.config import Training
from segshrink.doctor.findings import Finding, RecipeTerms
from segshrink.doctor.input_variants import InputVariant, outputs
from segshrink.doctor.sample import Sample
from segshrink.losses import WeightedTerm, label_terms
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher
from segshrink.training.distiller import Distiller
from segshrink.training.global_batch import Share
from segshrink.training.task import Batch

# A term with a smaller share hardly matters, one with a larger share drowns the others.
_LEAST_SHARE, _LARGEST_SHARE = 0.05, 0.95
# Key of a batch under which the teacher's answers lie.
_ANSWER = "answer"


def gradient_norms(
    student: SegmentationModel,
    teacher: Teacher,
    terms: Sequence[WeightedTerm],
    sample: Sample,
    *,
    batch_size: int,
    batches: int,
    steps: int = 0,
    training: Training | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Return the norm of the gradient of every group of weighted terms, a mean over batches, by the group's name.

    The labels' terms are one group: how they stand to each other is the control's matter as well. Each term that
    learns from the teacher is a group of its own. The gradient is with respect to all parameters of the student: terms
    on features don't reach the last layers, so that no single layer is pulled at by all terms. Student and teacher are
    left as they are.

    Args:
        student: The student, in any state of training.
        teacher: The teacher, as the student would learn from it.
        terms: The recipe's terms.
        sample: Crops to measure on.
        batch_size: Crops of a batch.
        batches: Number of batches, at most as many as the sample has.
        steps: Optimization steps taken with a copy first. A new network's answers are almost equal for all classes,
            where some losses pull a thousand times harder than ever after. All groups pull alike in these steps,
            whatever their weights: a term that hardly matters is hardly learned, so that its gradient would be that
            of another student than the one that the advised weights make.
        training: Settings of these steps.
        seed: Of the first weights of adapters.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    groups = term_groups(terms)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copied = copy.deepcopy(student).requires_grad_(True)
        task = _AnsweredDistiller(copied, teacher, terms, training=training, seed=seed).to(device)
        task.setup("fit")
        task.train()
        starts = list(range(0, max(len(sample) - batch_size + 1, 1), batch_size))[:batches]
        asked = not any(term.on_features for _, term in terms)
        prepared = [
            _batch(teacher, sample, list(range(start, min(start + batch_size, len(sample)))), asked=asked)
            for start in starts
        ]
        prepared = [{name: value.to(device) for name, value in batch.items()} for batch in prepared]
        _take_steps(task, [prepared[step % len(prepared)] for step in range(steps)], groups)
        norms = [
            {name: _norm(task, gradients) for name, gradients in _group_gradients(task, batch, groups)}
            for batch in prepared
        ]
    return {name: sum(batch[name] for batch in norms) / len(norms) for name in groups}


def term_groups(terms: Sequence[WeightedTerm]) -> dict[str, list[int]]:
    """Return the places of the terms by their group: all labels' terms together, each of the teacher's alone."""
    labeled = list(label_terms(terms))
    supervised = [number for number, (_, term) in enumerate(terms) if not term.needs_teacher]
    groups = {" + ".join(labeled[number] for number in supervised): supervised} if supervised else {}
    return groups | {labeled[n]: [n] for n, (_, term) in enumerate(terms) if term.needs_teacher}


def _take_steps(task: Distiller, batches: Iterable[Batch], groups: Mapping[str, Sequence[int]]) -> None:
    """Train for some steps in which every group of terms pulls at the student alike."""
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=task.settings.learning_rate)
    for batch in batches:
        optimizer.zero_grad()
        for _, gradients in _group_gradients(task, batch, groups):
            norm = _norm(task, gradients)
            if not math.isfinite(norm):
                return
            for parameter, gradient in gradients.items():
                pull = gradient / (norm or 1.0)
                parameter.grad = pull if parameter.grad is None else parameter.grad + pull
        if task.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, task.settings.clip_norm)
        optimizer.step()
    task.zero_grad()


def _group_gradients(
    task: Distiller, batch: Batch, groups: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, dict[nn.Parameter, Tensor]]]:
    """Yield each group with the gradient of its weighted terms, for the parameters that they depend on."""
    values = list(task.term_values(batch).values())
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    for name, places in groups.items():
        loss = torch.stack([task.terms[place].weight * values[place] for place in places]).sum()
        gradients: Sequence[Tensor | None] = [None] * len(parameters)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(parameters, gradients, strict=True)
        yield name, {parameter: gradient for parameter, gradient in pairs if gradient is not None}


def _norm(task: Distiller, gradients: Mapping[nn.Parameter, Tensor]) -> float:
    """Return the norm of a gradient over the student's parameters, without those of adapters; 0 for none."""
    squares = [gradients[one].double().square().sum() for one in task.model.parameters() if one in gradients]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def balance_findings(
    norms: Mapping[str, float], terms: Sequence[WeightedTerm], recipe_terms: RecipeTerms, *, state: str
) -> list[Finding]:
    """Return which groups of terms hardly matter, or drown the others, with the weight that would balance them.

    Args:
        norms: What ``gradient_norms`` gave.
        terms: The terms that it was given.
        recipe_terms: Where their weights come from.
        state: Which student it was measured on, in words.
    """
    total = sum(norms.values())
    if len(norms) < 2 or not total > 0:
        return []
    shares = {name: norm / total for name, norm in norms.items()}
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    message = f"shares of the gradient on {state}: {listed}"
    numbers: dict[str, Any] = {"shares": shares, "norms": dict(norms)}
    if silent := [name for name, norm in norms.items() if norm == 0]:
        why = "The student learns nothing from this term."
        fix = "look at the teacher's findings first; a term that stays silent can be left out"
        return [
            Finding("silent", "fault", "terms", f"{message}; {name} gives none", why, fix, numbers) for name in silent
        ]
    largest = max(shares, key=lambda name: shares[name])
    unbalanced = [name for name, share in shares.items() if share < _LEAST_SHARE]
    why = "The student hardly follows {}."
    if shares[largest] > _LARGEST_SHARE:
        unbalanced, why = [largest], "The student follows {} and hardly the rest."
    places = term_groups(terms)
    findings = []
    for name in unbalanced:
        factor = (total - norms[name]) / (len(norms) - 1) / norms[name]
        fix = recipe_terms.weights_line(dict.fromkeys(places[name], factor))
        changed = numbers | {"term": name, "factor": factor}
        findings.append(Finding("balance", "warning", "terms", message, why.format(name), fix, changed))
    return findings or [Finding("balance", "fine", "terms", message, numbers=numbers)]


def _batch(teacher: Teacher, sample: Sample, indices: Sequence[int], *, asked: bool) -> dict[str, Tensor]:
    """Return some crops as a batch, with the teacher's answers in half precision where it is ``asked`` now."""
    batch = {"image": sample.images[indices], "target": sample.targets[indices], "inside": sample.inside[indices]}
    if asked:
        batch[_ANSWER] = torch.cat([logits.half() for _, logits in outputs(teacher, sample, InputVariant(), indices)])
    return batch


class _AnsweredDistiller(Distiller):
    """A Distiller whose teacher is asked once about every batch, not at every step."""

    def teacher_logits(self, batch: Batch, share: Share | None = None) -> Tensor | None:
        return batch[_ANSWER].float() if _ANSWER in batch else super().teacher_logits(batch, share)
