"""What a student is to learn from, as its recipe says, and the recipe's line with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from segshrink.config import Distillation, Recipe, Term
from segshrink.doctor.remedies import recipe_line, rounded
from segshrink.losses import REGISTRY, preset_terms


@dataclass(frozen=True)
class Plan:
    """A recipe's distillation section with the terms of its student.

    Attributes:
        distillation: The section.
        supervised: Terms of the student's control.
    """

    distillation: Distillation
    supervised: tuple[Term, ...]

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Return a recipe's plan; without a student its control would have cross-entropy."""
        return cls(recipe.distillation, tuple(recipe.student.terms if recipe.student else [Term(name="cross_entropy")]))

    @property
    def listed(self) -> list[Term] | None:
        """The terms of a list or preset; None where alpha and temperature say it."""
        if self.distillation.terms is not None:
            return list(self.distillation.terms)
        if self.distillation.preset is not None:
            return preset_terms(self.distillation.preset, self.supervised)
        return None

    @property
    def temperature(self) -> float:
        """Temperature of the soft targets; that of the first term that has one."""
        if self.listed is None:
            return self.distillation.temperature
        return next((float(term.options["temperature"]) for term in self.listed if "temperature" in term.options), 1.0)

    @property
    def learns_features(self) -> bool:
        """Whether a term compares features, which a cache of logits doesn't hold."""
        return any(
            REGISTRY[term.name].compares == "features" or term.student or term.teacher for term in self.listed or ()
        )

    def temperature_line(self, temperature: float) -> str:
        """Return the line with another temperature in every term that has one."""
        if self.listed is None:
            return recipe_line("distillation.temperature", temperature)
        changed = [
            term.model_copy(update={"options": {**term.options, "temperature": temperature}})
            if "temperature" in term.options
            else term
            for term in self.listed
        ]
        return self._list_line(changed)

    def weights_line(self, factors: Mapping[int, float]) -> str:
        """Return the line with other weights for some terms: the labels' terms all alike, or one of the teacher's.

        Args:
            factors: What a term's weight is multiplied by, by its place among those of a weight above 0.
        """
        if self.listed is not None:
            kept = [term for term in self.listed if term.weight > 0]
            weights = [
                rounded(term.weight * factors[n]) if n in factors else term.weight for n, term in enumerate(kept)
            ]
            changed = [term.model_copy(update={"weight": weight}) for term, weight in zip(kept, weights, strict=True)]
            return self._list_line(changed)
        # Alpha is the share of the labels' terms, which come first.
        factor = factors[0] if 0 in factors else 1 / next(iter(factors.values()))
        alpha = self.distillation.alpha * factor
        return recipe_line("distillation.alpha", rounded(alpha / (alpha + 1 - self.distillation.alpha)))

    def _list_line(self, terms: Sequence[Term]) -> str:
        line = _terms_line("distillation.terms", terms)
        return line if self.distillation.preset is None else f"{recipe_line('distillation.preset', None)}\n{line}"


def _terms_line(key: str, terms: Sequence[Term]) -> str:
    listed = []
    for term in terms:
        told = term.model_dump(mode="json", exclude_defaults=True)
        listed.append({"name": told.pop("name"), **told, "weight": term.weight})
    return recipe_line(key, listed)
