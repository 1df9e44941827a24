"""Candidates: which networks a search looks at. Families of networks over a grid of widths, and pruned ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segshrink.config import ModelChoice
from segshrink.errors import ConfigError, UsageError, nearest
from segshrink.model_file import ModelFile
from segshrink.records import Record

# A decoder of "mobile" that ends at stride 4: a third of its time goes to stride 2.
_COARSE = {"decoder_channels": [64, 48, 32]}
# Options of our own families, the widest network first. Fewer blocks of "mobile" keep the weights that fit width 1, and
# so do other channels of its decoder.
_GRIDS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "mobile": (
        {},
        _COARSE,
        {**_COARSE, "blocks": 11},
        {**_COARSE, "blocks": 9},
        {"blocks": 9},
        {"blocks": 7},
        {"width": 1.5},
        {"width": 0.75},
        {"width": 0.5},
        {"width": 0.35},
    ),
    "separable-unet": ({"width": 0.5}, {"width": 0.375}, {"width": 0.25}, {"width": 0.125}),
    "unet": ({"width": 16}, {"width": 8}, {"width": 8, "depth": 4}, {"width": 4, "depth": 4}),
}
# The family of nothing but the recipe's student.
_ALONE = "student"
# Architectures of segmentation-models-pytorch whose decoder's channels can be chosen, and what they are by default.
_SMP_DECODERS = {"Unet": (256, 128, 64, 32, 16), "UnetPlusPlus": (256, 128, 64, 32, 16)}
_SMP_ENCODERS = ("mobilenet_v2", "resnet18")
_SMP_FACTORS = (1.0, 0.5, 0.25)


class _ModelConfig(Record):
    id: str


@dataclass(frozen=True)
class Candidate:
    """A network that may become the small model.

    Attributes:
        name: Fit for a folder's name, unique within a search.
        family: "mobile", "unet", "smp:Unet", ...
        id: The network's id, or a model folder.
        options: Options of the network.
        own: Whether it is the recipe's own student.
        keeps_weights: Whether the encoder weights that the recipe names for its student fit.
        pruned_from: Name of the candidate that it is pruned from; None: trained as it is built.
        macs: What it is pruned to, in multiply-accumulates of one image of the measured size.
    """

    name: str
    family: str
    id: str
    options: Mapping[str, Any] = field(default_factory=dict)
    own: bool = False
    keeps_weights: bool = False
    pruned_from: str | None = None
    macs: int | None = None

    @property
    def key(self) -> str:
        """The same text for the same network."""
        content = {"id": self.id, "options": dict(self.options), "macs": self.macs}
        return json.dumps(content, sort_keys=True)


def list_candidates(student: ModelChoice, families: Sequence[str] | None = None) -> list[Candidate]:
    """List the networks that a search looks at, the recipe's own student first.

    Args:
        student: The recipe's student.
        families: "mobile", "separable-unet", "unet", "smp:<Architecture>/<encoder>", any other network id, which stands
            for itself, or "student", which adds nothing to it; None takes the student's own family and ours.

    Raises:
        ConfigError: A family is unknown (the nearest is named), or none is given.
    """
    own = _own(student)
    if families is not None and not any(name.strip() for name in families):
        raise ConfigError(f"--families names nothing; known are: {', '.join(_GRIDS)}, or any network id")
    listed = [name.strip() for name in families] if families is not None else [own.family, *_GRIDS]
    found = {own.key: own}
    for family in dict.fromkeys(listed):
        for candidate in _of_family(family, student, own):
            found.setdefault(candidate.key, candidate)
    return list(found.values())


def pruned(candidate: Candidate, *, macs: int, share: float) -> Candidate:
    """Return a candidate that is another one pruned.

    Args:
        candidate: What is pruned after it was trained.
        macs: How many multiply-accumulates are left.
        share: How many of the candidate's own these are, in (0, 1).
    """
    name = f"{candidate.name}-pruned{round(100 * share)}"
    return replace(candidate, name=name, own=False, pruned_from=candidate.name, macs=macs)


def _own(student: ModelChoice) -> Candidate:
    """Return the recipe's student as it stands there."""
    folder = Path(student.id)
    if folder.is_dir():
        identity = _ModelConfig.read(ModelFile.find(folder).parts[0]).id
        return Candidate(_slug(folder.name), _family_of(identity), student.id, own=True, keeps_weights=True)
    name = _name(student.id, student.options)
    return Candidate(name, _family_of(student.id), student.id, student.options, own=True, keeps_weights=True)


def _of_family(family: str, student: ModelChoice, own: Candidate) -> list[Candidate]:
    if family in _GRIDS:
        return [_candidate(family, family, options, student) for options in _GRIDS[family]]
    if family == _ALONE or (family == own.family and not family.startswith("smp:")):
        return []
    if family.startswith("smp:"):
        return _smp_family(family, student)
    if ":" not in family:
        known = [_ALONE, *_GRIDS, "smp:<Architecture>/<encoder>"]
        raise UsageError(f"unknown family '{family}' in --families{nearest(family, known)}")
    return [_candidate(family, family, {}, student)]


def _smp_family(family: str, student: ModelChoice) -> list[Candidate]:
    """Return an architecture with small encoders (or the encoder that is named) and decoders of several widths."""
    architecture, _, encoder = family.removeprefix("smp:").partition("/")
    named = student.id.partition("/")[2] if student.id.startswith(f"smp:{architecture}/") else ""
    encoders = [encoder] if encoder else list(dict.fromkeys([*([named] if named else []), *_SMP_ENCODERS]))
    channels = _SMP_DECODERS.get(architecture)
    grid = [{"decoder_channels": [round(factor * one) for one in channels]} for factor in _SMP_FACTORS if factor < 1] \
        if channels else []  # fmt: skip
    return [
        _candidate(f"smp:{architecture}", f"smp:{architecture}/{one}", options, student)
        for one in encoders
        for options in [{}, *grid]
    ]


def _candidate(family: str, identity: str, options: Mapping[str, Any], student: ModelChoice) -> Candidate:
    # What else the recipe says about its own family, such as dropout, holds for all widths.
    given = {**student.options, **options} if student.id == identity else dict(options)
    same_encoder = student.id == identity and given.get("width") == student.options.get("width")
    return Candidate(_name(identity, given), family, identity, given, keeps_weights=same_encoder)


def _family_of(identity: str) -> str:
    return identity.partition("/")[0] if identity.startswith("smp:") else identity


def _name(identity: str, options: Mapping[str, Any]) -> str:
    told = [f"{name.removesuffix('_channels')}{_told(value)}" for name, value in options.items() if name != "weights"]
    return "-".join([_slug(identity), *(_slug(one) for one in told)])


def _told(value: Any) -> str:
    return "x".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") or "student"
