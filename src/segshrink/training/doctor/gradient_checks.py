"""How much each term of a recipe pulls at the student."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from segshrink.losses import WeightedTerm
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher
from segshrink.training.distiller import CACHED, Distiller
from segshrink.training.doctor.findings import Finding
from segshrink.training.doctor.plan import Plan
from segshrink.training.doctor.sample import Sample
from segshrink.training.doctor.trials import Trial, answers

# A term with a smaller share is hardly heard, one with a larger share drowns the others.
LEAST_SHARE, LARGEST_SHARE = 0.05, 0.95


def gradient_norms(
    student: SegmentationModel,
    teacher: Teacher,
    terms: Sequence[WeightedTerm],
    sample: Sample,
    *,
    batch_size: int,
    batches: int,
    seed: int = 0,
) -> dict[str, float]:
    """Return the norm of every weighted term's gradient, a mean over batches, by the term's label.

    The gradient is with respect to all parameters of the student: terms on features don't reach the last layers, so
    that no single layer is pulled at by all terms. Student and teacher are left as they are.

    Args:
        student: The student, in any state of training.
        teacher: The teacher, as the student would learn from it.
        terms: The recipe's terms.
        sample: Crops to measure on.
        batch_size: Crops of a batch.
        batches: Number of batches, at most as many as the sample has.
        seed: Of the first weights of adapters.
    """
    copied = copy.deepcopy(student).requires_grad_(True)
    task = Distiller(copied, teacher, terms, seed=seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.to(device)
    task.setup("fit")
    task.train()
    parameters = list(copied.parameters())
    totals = dict.fromkeys(task.labelled_terms, 0.0)
    starts = range(0, max(len(sample) - batch_size + 1, 1), batch_size)[:batches]
    for start in starts:
        values = task.term_values(_batch(teacher, sample, range(start, min(start + batch_size, len(sample))), device))
        for label, (weight, _) in task.labelled_terms.items():
            loss = weight * values[label]
            if not loss.requires_grad:
                continue  # nothing valid in this batch
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            squares = [gradient.double().square().sum() for gradient in gradients if gradient is not None]
            totals[label] += float(torch.stack(squares).sum().sqrt()) / len(starts) if squares else 0.0
    return totals


def balance_findings(
    norms: dict[str, float], terms: Sequence[WeightedTerm], plan: Plan, *, state: str
) -> list[Finding]:
    """Return which terms are hardly heard, or drown the others, with the weight that would balance them.

    Args:
        norms: What ``gradient_norms`` gave.
        terms: The terms, in the same order.
        plan: Where their weights come from.
        state: Which student it was measured on, in words.
    """
    total = sum(norms.values())
    if len(norms) < 2 or not total > 0:
        return []
    shares = {label: norm / total for label, norm in norms.items()}
    told = ", ".join(f"{label} {share:.1%}" for label, share in shares.items())
    seen = f"shares of the gradient on {state}: {told}"
    numbers = {"shares": shares, "norms": norms}
    loudest = max(shares, key=lambda label: shares[label])
    weak = [label for label, share in shares.items() if share < LEAST_SHARE]
    silent = [label for label in weak if norms[label] == 0]
    if silent:
        return [
            Finding(
                "silent", "fault", "terms", f"{seen}; {label} gives none",
                "The student learns nothing from this term.",
                "look at the teacher's findings first; a term that stays silent can be left out",
                numbers,
            )
            for label in silent
        ]  # fmt: skip
    positions = {label: number for number, label in enumerate(norms)}
    if shares[loudest] > LARGEST_SHARE:
        balanced = (total - norms[loudest]) / norms[loudest]
        why = f"The student follows {loudest} and hardly hears the rest."
        return [_balance(loudest, seen, why, balanced, positions, terms, plan, numbers)]
    return [
        _balance(
            label, seen, f"The student hardly hears {label}.",
            (total - norms[label]) / (len(norms) - 1) / norms[label], positions, terms, plan, numbers,
        )
        for label in weak
    ] or [Finding("balance", "fine", "terms", seen, numbers=numbers)]  # fmt: skip


def _balance(
    label: str,
    seen: str,
    why: str,
    factor: float,
    positions: dict[str, int],
    terms: Sequence[WeightedTerm],
    plan: Plan,
    numbers: dict[str, dict[str, float]],
) -> Finding:
    position = positions[label]
    weight = terms[position].weight * factor
    line = plan.weight_line(position, weight)
    return Finding("balance", "warning", "terms", seen, why, line, {**numbers, "term": label, "weight": weight})


def _batch(teacher: Teacher, sample: Sample, indices: range, device: torch.device) -> dict[str, torch.Tensor]:
    chosen = list(indices)
    batch = {"image": sample.images[chosen], "target": sample.targets[chosen], "inside": sample.inside[chosen]}
    if teacher.whole_scenes:
        batch[CACHED] = torch.cat([logits for _, logits in answers(teacher, sample, Trial(), chosen)])
    return {name: value.to(device) for name, value in batch.items()}
