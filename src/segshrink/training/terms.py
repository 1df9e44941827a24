"""The terms of a student, from the recipe's distillation section."""

from __future__ import annotations

from collections.abc import Sequence

from segshrink.config import Distillation, Term
from segshrink.losses import WeightedTerm, build_terms


def student_terms(distillation: Distillation, supervised: Sequence[Term]) -> tuple[WeightedTerm, ...]:
    """Return the listed terms, or alpha times the control's terms and (1 - alpha) times pixel KL."""
    if distillation.terms is not None:
        return build_terms(distillation.terms)
    hard = [term.model_copy(update={"weight": distillation.alpha * term.weight}) for term in supervised]
    soft = Term(name="pixel_kl", weight=1 - distillation.alpha, options={"temperature": distillation.temperature})
    return build_terms([*hard, soft])
