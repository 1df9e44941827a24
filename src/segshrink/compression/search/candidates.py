"""Candidates of a search: which networks it looks at, and what it knows about each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from segshrink.config import ModelChoice
from segshrink.config.recipe import is_folder
from segshrink.errors import FileError, UsageError, nearest
from segshrink.library import located, ready_models
from segshrink.model_file import CONFIG_FILE, ModelFile
from segshrink.models.imagenet_hubs import IMAGENET, may_have_imagenet_weights
from segshrink.profiling.load import is_busy
from segshrink.records import Record

Status = Literal["measured", "failed", "unfit", "not distilled", "distilled", "missed", "within", "chosen"]

# A decoder of "mobile" that ends at stride 4: a third of its time goes to stride 2.
_COARSE = {"decoder_channels": [64, 48, 32]}
_LITE = {"encoder": "efficientnet_lite0"}
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
        {**_COARSE, **_LITE},
        {**_COARSE, **_LITE, "blocks": 7},
        {"width": 1.5},
        {"width": 0.75},
        {"width": 0.5},
        {"width": 0.35},
    ),
    "espnetv2": ({"scale": 2.0}, {"scale": 1.5}, {"scale": 1.0}, {"scale": 0.5}),
    "separable-unet": ({"width": 0.5}, {"width": 0.375}, {"width": 0.25}, {"width": 0.125}),
    "unet": ({"width": 16}, {"width": 8}, {"width": 8, "depth": 4}, {"width": 4, "depth": 4}),
}
# Those that are looked at unasked, beside the student's.
_FAMILIES = ("mobile", "separable-unet", "unet")
# The family that adds nothing to the recipe's student.
_STUDENT_ONLY = "student"
# Architectures of segmentation-models-pytorch whose decoder channels can be chosen, and the grid over them.
_SMP_DECODERS = ("Unet", "UnetPlusPlus")
_SMP_GRID: tuple[dict[str, Any], ...] = (
    {},
    {"decoder_channels": [128, 64, 32, 16, 8]},
    {"decoder_channels": [64, 32, 16, 8, 4]},
)
_SMP_ENCODERS = ("mobilenet_v2", "resnet18")


class _ModelConfig(Record):
    id: str
    options: dict[str, Any] = Field(default={})


@dataclass(frozen=True)
class Candidate:
    """A network that may become the small model.

    Attributes:
        name: Fit for a folder's name, unique within a search.
        family: "mobile", "unet", "smp:Unet", ...
        id: The network's id, or a model folder.
        options: Options of the network.
        from_recipe: Whether it is the recipe's student.
        keeps_weights: Whether the encoder weights that the recipe names for its student fit; ImageNet's fit many.
        pruned_from: Name of the candidate that it is pruned from; None: trained as it is built.
        macs: What it is pruned to, in multiply-accumulates of one image of the measured size.
    """

    name: str
    family: str
    id: str
    options: Mapping[str, Any] = field(default_factory=dict)
    from_recipe: bool = False
    keeps_weights: bool = False
    pruned_from: str | None = None
    macs: int | None = None

    @property
    def key(self) -> str:
        """The same text for the same network."""
        content = {"id": self.id, "options": dict(self.options), "macs": self.macs}
        return json.dumps(content, sort_keys=True)


@dataclass(frozen=True)
class CandidateFile:
    """One exported file of a candidate, or the teacher, with what it costs here. Costs of 0: not measured yet.

    Attributes:
        runtime: "onnxruntime" or "openvino"; "torch" for the teacher.
        precision: "fp32" or "int8".
        size_bytes: Of the file, with its weights where they stand in one of their own.
        latency_ms: Median of one image.
        latency_p95_ms: 95th percentile.
        memory_mb: Largest resident set of a fresh process that loads it and runs one image, in 10^6 bytes.
        path: The file; None when it was of random weights, and is gone.
        mean_iou: Of this very file on the validation split, in [0, 1]; None before it was scored.
        accuracy: Its share of right pixels.
        load: Share of the cores that other programs took while it was timed, 0 to 1; None where unknown.
    """

    runtime: str
    precision: str
    size_bytes: int
    latency_ms: float = 0.0
    latency_p95_ms: float = 0.0
    memory_mb: float = 0.0
    path: str | None = None
    mean_iou: float | None = None
    accuracy: float | None = None
    load: float | None = None

    @property
    def label(self) -> str:
        """Such as "int8 on openvino"."""
        return f"{self.precision} on {self.runtime}"


@dataclass(frozen=True)
class Reference:
    """What candidates are compared with: the teacher.

    Attributes:
        name: How it is called.
        file: Its model folder in PyTorch fp32, scored; without a path for a black box, which is not measured.
        parameters: How many it has; None when unknown.
    """

    name: str
    file: CandidateFile
    parameters: int | None = None

    @property
    def mean_iou(self) -> float:
        """On the validation split, in [0, 1]."""
        return self.file.mean_iou or 0.0


@dataclass(frozen=True)
class CandidateResult:
    """A candidate and what is known about it; its fields are the keys of the records in a work folder.

    Attributes:
        candidate: The network.
        parameters: How many it has.
        macs: Multiply-accumulates of one image of the measured size.
        untrained: Its files with random weights.
        run: Its run folder, once distilled.
        mean_iou: Of the distilled model in PyTorch, in [0, 1].
        files: Its exported files, scored and measured.
        status: What became of it.
        reason: The same for people: "too slow: latency 31 ms > 20 ms".
        refused: Why files of it that couldn't be run on this machine are missing.
    """

    candidate: Candidate
    parameters: int = 0
    macs: int = 0
    untrained: tuple[CandidateFile, ...] = ()
    run: str | None = None
    mean_iou: float | None = None
    files: tuple[CandidateFile, ...] = ()
    status: Status = "measured"
    reason: str = ""
    refused: tuple[str, ...] = ()

    @property
    def timed_well(self) -> bool:
        """Whether its untrained files were timed on a machine that is known to have been quiet."""
        return all(file.load is not None and not is_busy(file.load) for file in self.untrained)

    @property
    def name(self) -> str:
        """The candidate's."""
        return self.candidate.name

    def with_status(self, status: Status, reason: str) -> CandidateResult:
        """Return a copy with this status."""
        return replace(self, status=status, reason=reason)

    def values(self, file: CandidateFile, *, teacher_iou: float | None = None) -> dict[str, float | None]:
        """Return what budgets limit, in base units, of one of its files."""
        drop = None if teacher_iou is None or file.mean_iou is None else 100 * (teacher_iou - file.mean_iou)
        return {
            "latency": file.latency_ms,
            "size": float(file.size_bytes),
            "memory": 1e6 * file.memory_mb,
            "parameters": float(self.parameters),
            "macs": float(self.macs),
            "drop": drop,
            "miou": file.mean_iou,
            "accuracy": file.accuracy,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping that ``from_dict`` reads back."""
        return {"name": self.name, **asdict(self)}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> CandidateResult:
        """Read the measurements of an untrained candidate that ``to_dict`` gave.

        Raises:
            FileError: A part is missing or of the wrong kind.
        """
        try:
            result = TypeAdapter(cls).validate_python({key: value for key, value in mapping.items() if key != "name"})
            costs = [
                cost
                for file in (*result.untrained, *result.files)
                for cost in (file.size_bytes, file.latency_ms, file.latency_p95_ms, 1 + file.memory_mb)
            ]
            if not result.untrained or not all(
                0 < cost < math.inf for cost in (*costs, result.parameters, result.macs)
            ):
                raise ValueError("no file, or a cost that is no number above 0")
        except (AttributeError, ValueError, OverflowError, RecursionError) as error:
            raise FileError(
                f"the measurements of a candidate are damaged ({type(error).__name__}); delete them"
            ) from error
        return result


def list_candidates(student: ModelChoice, families: Sequence[str] | None = None) -> list[Candidate]:
    """List the networks that a search looks at, the recipe's student first.

    Args:
        student: The recipe's student.
        families: "mobile", "separable-unet", "unet", "espnetv2", "smp:<Architecture>/<encoder>", any other network id,
            which stands for itself, or "student", which adds nothing to it; None takes the student's family and the
            first three.

    Raises:
        UsageError: A family is unknown (the nearest is named), or none is given.
    """
    first, student = _recipe_student(student), as_network(student)
    if families is not None and not any(name.strip() for name in families):
        raise UsageError(f"--families names nothing; known are: {', '.join(_GRIDS)}, or any network id")
    names = [name.strip() for name in families] if families is not None else [first.family, *_FAMILIES]
    candidates = {_candidate(student.id, student.options, student).key: first}
    for family in dict.fromkeys(names):
        for identity, options in _networks(family, student, first.family):
            candidate = _candidate(identity, options, student)
            candidates.setdefault(candidate.key, candidate)
    _, *others = candidates.values()
    if first.name in {other.name for other in others}:  # the student's folder is called as a network
        first = replace(first, name=f"start-{first.name}")
    return [first, *others]


def as_network(student: ModelChoice) -> ModelChoice:
    """Return a student that starts from a ready model as that one's network with its encoder; any other as it is."""
    folder = ready_models().get(student.start or "")
    if student.start is None or folder is None:
        return student
    config = _ModelConfig.read(folder / CONFIG_FILE)
    encoder = Path(student.start)
    return ModelChoice(id=config.id, options=config.options, encoder_weights=encoder, normalization="half")


def pruned(candidate: Candidate, *, macs: int, share: float) -> Candidate:
    """Return a candidate that is another one pruned.

    Args:
        candidate: What is pruned after it was trained.
        macs: How many multiply-accumulates are left.
        share: How many of the candidate's these are, in (0, 1).
    """
    name = f"{candidate.name}-pruned{round(100 * share)}"
    return replace(candidate, name=name, from_recipe=False, pruned_from=candidate.name, macs=macs)


def _recipe_student(student: ModelChoice) -> Candidate:
    """Return the recipe's student as it stands there."""
    folder = Path(located(student.id))
    if is_folder(student.id) or student.start is not None:
        # Weights that training starts from without a folder are ESPNetv2's.
        identity = _ModelConfig.read(ModelFile.find(folder).parts[0]).id if folder.is_dir() else "espnetv2"
        return Candidate(_slug(folder.name), _family_of(identity), student.id, from_recipe=True, keeps_weights=True)
    candidate = _candidate(student.id, student.options, student)
    return replace(candidate, from_recipe=True, keeps_weights=True)


def _networks(family: str, student: ModelChoice, student_family: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the ids and options of a family's networks.

    Of segmentation-models-pytorch these are an architecture with small encoders (or the encoder that is named) and
    decoders of several widths.
    """
    if family in _GRIDS:
        return [(family, options) for options in _GRIDS[family]]
    if family.startswith("smp:"):
        architecture, _, encoder = family.removeprefix("smp:").partition("/")
        named = student.id.partition("/")[2] if student.id.startswith(f"smp:{architecture}/") else ""
        encoders = [encoder] if encoder else list(dict.fromkeys([*filter(None, [named]), *_SMP_ENCODERS]))
        grid = _SMP_GRID if architecture in _SMP_DECODERS else _SMP_GRID[:1]
        return [(f"smp:{architecture}/{encoder}", options) for encoder in encoders for options in grid]
    if family in (_STUDENT_ONLY, student_family):
        return []
    if ":" not in family:
        known = [_STUDENT_ONLY, *_GRIDS, "smp:<Architecture>/<encoder>"]
        raise UsageError(f"unknown family '{family}' in --families{nearest(family, known)}")
    return [(family, {})]


def _candidate(identity: str, options: Mapping[str, Any], student: ModelChoice) -> Candidate:
    # What else the recipe says about its student, such as dropout, holds for all widths of the same network.
    chosen = {**student.options, **options} if student.id == identity else dict(options)
    same = all(chosen.get(option) == student.options.get(option) for option in ("width", "encoder"))
    imagenet = (
        student.encoder_weights == IMAGENET and chosen.get("width", 1) == 1 and may_have_imagenet_weights(identity)
    )
    parts = [_part(option, value) for option, value in chosen.items() if option != "weights"]
    name = "-".join(map(_slug, [identity, *parts]))
    return Candidate(
        name, _family_of(identity), identity, chosen, keeps_weights=(same and student.id == identity) or imagenet
    )


def _part(option: str, value: Any) -> str:
    """Write an option as a part of a name."""
    if isinstance(value, str):
        return value
    values = "x".join(map(str, value)) if isinstance(value, list | tuple) else value
    return f"{option.removesuffix('_channels')}{values}"


def _family_of(identity: str) -> str:
    return identity.partition("/")[0] if identity.startswith("smp:") else identity


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") or "student"
