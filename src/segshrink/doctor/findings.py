"""What an examination found: plain data, ranked, that can be written as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["fault", "warning", "fine"]
About = Literal["teacher", "student", "terms"]
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
        seen: What was seen, with the numbers.
        why: Why it matters; empty where all is fine.
        remedy: The recipe line that mends it, or what else to do; empty where nothing is to be done.
        numbers: What was measured, JSON-able.
    """

    kind: str
    severity: Severity
    about: About
    seen: str
    why: str = ""
    remedy: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All findings of one examination.

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
        return {
            "data": self.data,
            "images": self.images,
            "size": self.size,
            "healthy": self.healthy,
            "findings": [_plain(asdict(finding)) for finding in self.findings],
        }


def _plain(value: Any) -> Any:
    """Replace numbers that aren't finite by None, which JSON can say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return faults before warnings before the rest.

    Among equals what makes scores doubtful comes first, then what explains more mIoU, then the given order.
    """

    def key(finding: Finding) -> tuple[int, bool, float]:
        return _RANKS[finding.severity], finding.kind not in _FIRST, -finding.numbers.get("gain", 0.0)

    return tuple(sorted(findings, key=key))
