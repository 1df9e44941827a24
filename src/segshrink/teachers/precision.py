"""Teachers in the precision in which they answer soonest."""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from segshrink.errors import FileError, ModelError
from segshrink.files import read_json, write_json
from segshrink.machine import describe_machine, package_versions
from segshrink.teachers.low_precision import Lowered, OpenVinoTeacher
from segshrink.teachers.teacher import Teacher

_LOGGER = logging.getLogger(__name__)
OWN = "own"
# Another precision is worth it from this share of the time on; less is noise.
_WORTH = 0.95
# A teacher that changes its mind about more pixels than this isn't the same one.
_LEAST_AGREEMENT = 0.95
_TURNS = 5
# Tiles that answers are compared on.
_COMPARED = 8
_LOWERED: Mapping[str, tuple[Lowered, ...]] = {"bf16": ("bf16",), "int8": ("bf16", "int8")}

Question = Callable[[Teacher, NDArray[Any]], Tensor]


@dataclass(frozen=True)
class PrecisionChoice:
    """How a teacher is run, and why.

    Attributes:
        teacher: Its name.
        chosen: "own": as it is; "bf16" or "int8": through OpenVINO.
        milliseconds: For one question, by precision; those that failed are missing.
        same_class: Share of pixels, in [0, 1], that keep their likeliest class, by precision.
        failures: Why a precision couldn't be had.
        question: What was asked.
        machine: Where it was measured.
    """

    teacher: str
    chosen: str
    milliseconds: Mapping[str, float]
    same_class: Mapping[str, float]
    failures: Mapping[str, str] = field(default_factory=dict)
    question: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        own = f"{self.milliseconds[OWN]:.0f} ms"
        if self.chosen != OWN:
            return (
                f"{self.teacher} runs in {self.chosen} through OpenVINO: {self.milliseconds[self.chosen]:.0f} instead "
                f"of {own} for {self.question}; {100 * self.same_class[self.chosen]:.1f} % of pixels keep their class"
            )
        tried = [
            f"{name}: {time:.0f} ms, {100 * self.same_class[name]:.1f} % of pixels keep their class"
            for name, time in self.milliseconds.items()
            if name != OWN
        ]
        tried += [f"{name}: {reason}" for name, reason in self.failures.items()]
        return f"{self.teacher} runs as it is, {own} for {self.question} (through OpenVINO {'; '.join(tried)})"


def quickest(
    teacher: Teacher,
    lowest: str,
    tiles: Sequence[NDArray[Any]],
    *,
    ask: Question,
    question: str,
    folder: Path,
) -> tuple[Teacher, tuple[PrecisionChoice, ...]]:
    """Return a teacher in the precision in which it answers soonest, and the choice for each that it consists of.

    Its own runtime is compared with OpenVINO, by turns. A choice is kept in ``folder`` and holds until the teacher, the
    tiles, the question, the machine or a runtime's version changes. Where answers about fewer than 95 % of the pixels
    stay the same, a precision isn't taken.

    Args:
        teacher: As it was opened. On a GPU it stays as it is.
        lowest: "auto": it stays as it is; "bf16"; "int8": bf16 or int8.
        tiles: Raw pixels (bands, H, W) of images that the teacher will see.
        ask: Asks a teacher about a tile, as it will be asked; gives logits (N, C, H, W).
        question: What that is, for messages.
        folder: Where choices are kept.

    Raises:
        MissingExtraError: OpenVINO, or NNCF for "int8", isn't installed.
    """
    if lowest not in _LOWERED or torch.cuda.is_available():
        return teacher, ()
    if teacher.parts:
        found = [quickest(part, lowest, tiles, ask=ask, question=question, folder=folder) for part in teacher.parts]
        return teacher.of_parts([part for part, _ in found]), tuple(choice for _, own in found for choice in own)
    if teacher.whole_scenes:
        return teacher, ()
    try:
        lowered: dict[str, Teacher] = {
            precision: OpenVinoTeacher(teacher, precision, tiles) for precision in _LOWERED[lowest]
        }
    except ModelError as error:
        _LOGGER.warning("%s; until then it runs as it is", error)
        return teacher, ()
    candidates: Mapping[str, Teacher] = {OWN: teacher, **lowered}
    versions = package_versions("openvino", "nncf", "onnxruntime", "ai-edge-litert")
    machine = {**describe_machine(), **versions}
    asked = hashlib.sha256(
        json.dumps([[candidate.identity for candidate in candidates.values()], question, machine]).encode()
    ).hexdigest()
    path = folder / f"precision-{asked[:16]}.json"
    choice = _read(path)
    if choice is None:
        choice = _compare(candidates, tiles, ask=ask, question=question, machine=machine)
        if not choice.failures:  # what failed may be mended
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, asdict(choice))
    _LOGGER.warning("%s", choice)
    return candidates[choice.chosen], (choice,)


def _compare(
    candidates: Mapping[str, Teacher],
    tiles: Sequence[NDArray[Any]],
    *,
    ask: Question,
    question: str,
    machine: Mapping[str, Any],
) -> PrecisionChoice:
    """Ask all candidates the same, and time them."""
    expected = [_likeliest(ask(candidates[OWN], tile)) for tile in tiles[:_COMPARED]]
    agreement: dict[str, float] = {}
    failures: dict[str, str] = {}
    running = {OWN: candidates[OWN]}
    for name, candidate in candidates.items():
        if name == OWN:
            continue
        try:
            answers = [_likeliest(ask(candidate, tile)) for tile in tiles[:_COMPARED]]
        except ModelError as error:
            failures[name] = str(error)
            continue
        equal = sum(int((one == other).sum()) for one, other in zip(answers, expected, strict=True))
        agreement[name] = equal / sum(one.numel() for one in expected)
        running[name] = candidate
    times: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(_TURNS):
        for name, candidate in running.items():
            ask(candidate, tiles[0])  # other candidates have emptied the caches
            begun = time.perf_counter()
            ask(candidate, tiles[0])
            times[name].append(1000 * (time.perf_counter() - begun))
    typical = {name: statistics.median(own) for name, own in times.items()}
    worthy = [
        name
        for name, share in agreement.items()
        if share >= _LEAST_AGREEMENT and typical[name] <= _WORTH * typical[OWN]
    ]
    chosen = min(worthy, key=typical.__getitem__, default=OWN)
    return PrecisionChoice(candidates[OWN].name, chosen, typical, agreement, failures, question, machine)


def _likeliest(logits: Tensor) -> Tensor:
    return logits.max(dim=1).indices


def _read(path: Path) -> PrecisionChoice | None:
    """Return the choice that was kept; None: there is none, or it can't be read."""
    try:
        return PrecisionChoice(**read_json(path))
    except (FileError, TypeError):
        return None
