"""What a diagnosis found, ranked, and the recipe lines that fix it.

A fix is ``section.key: value``, YAML on one line. On a command line the same is an override, ``section.key=value``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from segshrink.config import Distillation, Recipe, Term
from segshrink.formatting import flow_yaml
from segshrink.losses import REGISTRY, preset_terms
from segshrink.training.terms import temperature_of

Severity = Literal["fault", "warning", "fine"]
_RANKS: Mapping[Severity, int] = {"fault": 0, "warning": 1, "fine": 2}
# What makes every score doubtful comes before what a score seems to say.
_FIRST = ("not-finite", "random", "batch")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        kind: What it is, as docs/doctor.md lists it ("scaling", "order", "classes", "balance", ...); causes that only
            explain a teacher together are joined by " and ".
        severity: "fault": distillation can't work, or loses much; "warning": worth a look; "fine": in order.
        about: Teacher, student or terms.
        message: What was measured, in a sentence.
        why: Why it matters; empty where all is fine.
        fix: The recipe line that fixes it, or what else to do; empty where nothing is to be done.
        numbers: What was measured, JSON-able.
    """

    kind: str
    severity: Severity
    about: Literal["teacher", "student", "terms"]
    message: str
    why: str = ""
    fix: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All findings about a recipe's teachers, student and terms.

    Attributes:
        data: Name of the data set.
        images: Number of crops that were looked at.
        size: Their side in pixels.
        findings: What explains most first: faults, warnings, then what is fine.
    """

    data: str
    images: int
    size: int
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that keep distillation from working."""
        return tuple(finding for finding in self.findings if finding.severity == "fault")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are worth a look."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def healthy(self) -> bool:
        """Whether no fault was found; warnings don't count."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping."""
        return {"healthy": self.healthy, **_plain(asdict(self))}


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return faults before warnings before the rest.

    Among equals what makes scores doubtful comes first, then what explains more mIoU, then the given order.
    """

    def key(finding: Finding) -> tuple[int, bool, float]:
        return _RANKS[finding.severity], finding.kind not in _FIRST, -finding.numbers.get("gain", 0.0)

    return tuple(sorted(findings, key=key))


def recipe_line(key: str, value: Any) -> str:
    """Return one line of a recipe, such as ``distillation.temperature: 4``."""
    return f"{key}: {flow_yaml(_plain(value))}"


def rounded(value: float, digits: int = 2) -> float:
    """Round to that many significant digits."""
    return float(f"{value:.{digits}g}")


def percent(share: float) -> str:
    """Return a share in [0, 1] in percent, with one decimal where it is small."""
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


@dataclass(frozen=True)
class RecipeTerms:
    """What a student is to learn from, as its recipe says, and the recipe's line with one thing changed.

    Attributes:
        distillation: The recipe's section.
        supervised: Terms of the student's control.
    """

    distillation: Distillation
    supervised: tuple[Term, ...]

    @classmethod
    def of(cls, recipe: Recipe) -> RecipeTerms:
        """Return a recipe's terms; without a student its control would have cross-entropy."""
        return cls(recipe.distillation, tuple(recipe.student.terms if recipe.student else [Term(name="cross_entropy")]))

    @property
    def listed(self) -> list[Term] | None:
        """The terms of a list or preset; None where alpha and temperature say it."""
        if self.distillation.preset is not None and self.distillation.terms is None:
            return preset_terms(self.distillation.preset, self.supervised)
        return self.distillation.terms

    @property
    def temperature(self) -> float:
        """Temperature of the soft targets; that of the first term that has one."""
        if self.listed is None:
            return self.distillation.temperature
        temperatures = (temperature_of(term) for term in self.listed)
        return next((float(each) for each in temperatures if each is not None), 1.0)

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
        other = {"temperature": temperature}
        return self._list_line(
            term.model_copy(update={"options": term.options | other}) if temperature_of(term) is not None else term
            for term in self.listed
        )

    def weights_line(self, factors: Mapping[int, float]) -> str:
        """Return the line with other weights for some terms: the labels' terms all alike, or one of the teacher's.

        Args:
            factors: What a term's weight is multiplied by, by its place among those of a weight above 0.
        """
        if self.listed is not None:
            weighted = enumerate(term for term in self.listed if term.weight > 0)
            return self._list_line(
                term.model_copy(update={"weight": rounded(term.weight * factors[place])}) if place in factors else term
                for place, term in weighted
            )
        # Alpha is the share of the labels' terms, which come first.
        factor = factors[0] if 0 in factors else 1 / next(iter(factors.values()))
        labels = self.distillation.alpha * factor
        alpha = rounded(labels / (labels + 1 - self.distillation.alpha))
        return f"{recipe_line('distillation.alpha', alpha)}  # the labels' share, as soft_weight: {rounded(1 - alpha)}"

    def _list_line(self, terms: Iterable[Term]) -> str:
        entries = []
        for term in terms:
            entry = term.model_dump(mode="json", exclude_defaults=True)
            entries.append({"name": entry.pop("name"), **entry, "weight": term.weight})
        line = recipe_line("distillation.terms", entries)
        return line if self.distillation.preset is None else f"{recipe_line('distillation.preset', None)}\n{line}"


def _plain(value: Any) -> Any:
    """Write whole numbers without a decimal point, and those that aren't finite as None, which JSON can say."""
    if isinstance(value, float):
        return (int(value) if value.is_integer() else value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
