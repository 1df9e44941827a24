"""How much each term of a recipe pulls at the student."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch

from segshrink.config import Training
from segshrink.losses import WeightedTerm
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher
from segshrink.training.distiller import Distiller
from segshrink.training.doctor.findings import Finding
from segshrink.training.doctor.plan import Plan
from segshrink.training.doctor.sample import Sample
from segshrink.training.doctor.trials import Trial, answers
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
        steps: Optimisation steps taken with a copy first. A new network's answers are almost equal for all classes,
            where some losses pull a thousand times harder than ever after.
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
        _take_steps(task, [given[step % len(given)] for step in range(steps)])
        totals = dict.fromkeys(task.labelled_terms, 0.0)
        for batch in given:
            for label, norm in _norms(task, batch).items():
                totals[label] += norm / len(given)
    return totals


def _take_steps(task: Distiller, batches: Iterable[Batch]) -> None:
    settings = task.settings
    optimizer = torch.optim.AdamW(task.parameters(), lr=settings.learning_rate)
    for batch in batches:
        values = task.term_values(batch)
        loss = torch.stack([weight * values[label] for label, (weight, _) in task.labelled_terms.items()]).sum()
        if not loss.requires_grad or not bool(torch.isfinite(loss)):
            return
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(task.parameters(), settings.clip_norm)
        optimizer.step()
    task.zero_grad()


def _norms(task: Distiller, batch: Batch) -> dict[str, float]:
    """Return the norm of each weighted term's gradient; 0 where nothing is valid."""
    parameters = list(task.model.parameters())
    values = task.term_values(batch)
    norms = {}
    for label, (weight, _) in task.labelled_terms.items():
        loss = weight * values[label]
        gradients = (
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) if loss.requires_grad else ()
        )
        squares = [gradient.double().square().sum() for gradient in gradients if gradient is not None]
        norms[label] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


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
