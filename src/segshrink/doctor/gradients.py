"""How much each term of a recipe pulls at the student."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from segshrink.config import Training
from segshrink.doctor.findings import Finding
from segshrink.doctor.plan import Plan
from segshrink.doctor.sample import Sample
from segshrink.doctor.input_variants import Trial, answers
from segshrink.losses import WeightedTerm, label_terms
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher
from segshrink.training.distiller import Distiller
from segshrink.training.task import Batch

# A term with a smaller share is hardly heard, one with a larger share drowns the others.
LEAST_SHARE, LARGEST_SHARE = 0.05, 0.95
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
        steps: Optimisation steps taken with a copy first. A new network's answers are almost equal for all classes,
            where some losses pull a thousand times harder than ever after. All groups pull alike in these steps,
            whatever their weights: a term that is hardly heard is hardly learned, so that its gradient would be that
            of another student than the one that the advised weights make.
        training: Settings of these steps.
        seed: Of the first weights of adapters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copied = copy.deepcopy(student).requires_grad_(True)
        task = _Answered(copied, teacher, terms, training=training, seed=seed)
        task.to("cuda" if torch.cuda.is_available() else "cpu")
        task.setup("fit")
        task.train()
        starts = list(range(0, max(len(sample) - batch_size + 1, 1), batch_size))[:batches]
        asked = not any(term.on_features for _, term in terms)
        given = [
            _batch(teacher, sample, range(start, min(start + batch_size, len(sample))), asked=asked) for start in starts
        ]
        groups = term_groups(terms)
        _take_steps(task, [given[step % len(given)] for step in range(steps)], groups)
        totals = dict.fromkeys(groups, 0.0)
        for batch in given:
            for name, norm in _norms(task, batch, groups).items():
                totals[name] += norm / len(given)
    return totals


def term_groups(terms: Sequence[WeightedTerm]) -> dict[str, list[int]]:
    """Return the places of the terms by their group: all labels' terms together, each of the teacher's alone."""
    labelled = list(label_terms(terms))
    supervised = [number for number, (_, term) in enumerate(terms) if not term.needs_teacher]
    groups = {" + ".join(labelled[number] for number in supervised): supervised} if supervised else {}
    return groups | {labelled[n]: [n] for n, (_, term) in enumerate(terms) if term.needs_teacher}


def _take_steps(task: Distiller, batches: Iterable[Batch], groups: Mapping[str, Sequence[int]]) -> None:
    """Train for some steps in which every group of terms pulls at the student alike."""
    settings, parameters = task.settings, [one for one in task.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate)
    for batch in batches:
        optimizer.zero_grad()
        for loss in _group_losses(task, batch, groups).values():
            gradients = _gradients(loss, parameters)
            norm = _norm(gradients[one] for one in task.model.parameters() if one in gradients)
            if not math.isfinite(norm):
                return
            for parameter, gradient in gradients.items():
                pull = gradient / (norm or 1.0)
                parameter.grad = pull if parameter.grad is None else parameter.grad + pull
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        optimizer.step()
    task.zero_grad()


def _norms(task: Distiller, batch: Batch, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the norm of each group's gradient; 0 where nothing is valid."""
    parameters = list(task.model.parameters())
    losses = _group_losses(task, batch, groups)
    return {name: _norm(_gradients(loss, parameters).values()) for name, loss in losses.items()}


def _group_losses(task: Distiller, batch: Batch, groups: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return the weighted sum of each group's terms."""
    values = list(task.term_values(batch).values())
    return {
        name: torch.stack([task.terms[place].weight * values[place] for place in places]).sum()
        for name, places in groups.items()
    }


def _gradients(loss: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Return the gradient of each parameter that the loss depends on."""
    if not loss.requires_grad:
        return {}
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {one: gradient for one, gradient in zip(parameters, found, strict=True) if gradient is not None}


def _norm(gradients: Iterable[torch.Tensor]) -> float:
    squares = [gradient.double().square().sum() for gradient in gradients]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def balance_findings(
    norms: Mapping[str, float], terms: Sequence[WeightedTerm], plan: Plan, *, state: str
) -> list[Finding]:
    """Return which groups of terms are hardly heard, or drown the others, with the weight that would balance them.

    Args:
        norms: What ``gradient_norms`` gave.
        terms: The terms that it was given.
        plan: Where their weights come from.
        state: Which student it was measured on, in words.
    """
    total = sum(norms.values())
    if len(norms) < 2 or not total > 0:
        return []
    shares = {name: norm / total for name, norm in norms.items()}
    told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    seen = f"shares of the gradient on {state}: {told}"
    numbers: dict[str, Any] = {"shares": shares, "norms": dict(norms)}
    weak = [name for name, share in shares.items() if share < LEAST_SHARE]
    silent = [name for name in weak if norms[name] == 0]
    if silent:
        why, remedy = (
            "The student learns nothing from this term.",
            "look at the teacher's findings first; a term that stays silent can be left out",
        )
        return [
            Finding("silent", "fault", "terms", f"{seen}; {name} gives none", why, remedy, numbers) for name in silent
        ]
    loudest = max(shares, key=lambda name: shares[name])
    factors = {name: (total - norms[name]) / (len(norms) - 1) / norms[name] for name in weak}
    why = "The student hardly hears {}."
    if shares[loudest] > LARGEST_SHARE:
        factors = {loudest: (total - norms[loudest]) / (len(norms) - 1) / norms[loudest]}
        why = "The student follows {} and hardly hears the rest."
    places = term_groups(terms)
    return [
        Finding(
            "balance",
            "warning",
            "terms",
            seen,
            why.format(name),
            plan.weights_line(dict.fromkeys(places[name], factor)),
            {**numbers, "term": name, "factor": factor},
        )
        for name, factor in factors.items()
    ] or [Finding("balance", "fine", "terms", seen, numbers=numbers)]


def _batch(teacher: Teacher, sample: Sample, indices: range, *, asked: bool) -> dict[str, torch.Tensor]:
    """Return some crops as a batch, with the teacher's answers in half precision where it is ``asked`` now."""
    chosen = list(indices)
    batch = {"image": sample.images[chosen], "target": sample.targets[chosen], "inside": sample.inside[chosen]}
    if asked:
        batch[_ANSWER] = torch.cat([logits.half() for _, logits in answers(teacher, sample, Trial(), chosen)])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {name: value.to(device) for name, value in batch.items()}


class _Answered(Distiller):
    """A Distiller whose teacher is asked once about every batch, not at every step."""

    def teacher_logits(self, batch: Batch) -> torch.Tensor | None:
        return batch[_ANSWER].float() if _ANSWER in batch else super().teacher_logits(batch)
