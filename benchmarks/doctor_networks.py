"""The networks of ``benchmarks/doctor.py``: trained on the Dubai scenes where absent, with faults planted on demand.

A recipe names them as a user names own networks: ``doctor_networks:planted``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from segshrink.config import Recipe, TeacherSource, Teaching, load_adapter, load_dataset, load_recipe
from segshrink.data import CropModule, open_dataset
from segshrink.models import load_model
from segshrink.teachers import Teacher, open_teachers
from segshrink.training import train

ROOT = Path(__file__).resolve().parents[1]
# Steps of the plain network, the snapshot that is merely weak, and those whose weights are averaged.
PLAIN_STEPS, HALF_TRAINED, AVERAGED_FROM = 900, 120, 700
_AVERAGED_EVERY = 20
_CHANNELS = (16, 32, 64, 96)


class PlainUnet(nn.Module):
    """A small U-Net without any normalization layer: pixels of about zero mean and unit deviation (N, 3, H, W) in."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        sizes = _CHANNELS
        self.down = nn.ModuleList(
            _convolutions(before, after) for before, after in zip((3, *sizes), sizes, strict=False)
        )
        self.up = nn.ModuleList(
            _convolutions(above + below, below) for above, below in zip(sizes[:0:-1], sizes[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(sizes[0], classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, classes, H, W)."""
        features = F.avg_pool2d(pixels, 2)
        skips = []
        for index, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if index else features)
            skips.append(features)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            features = block(torch.cat([F.interpolate(features, size=skip.shape[2:]), skip], dim=1))
        logits = self.head(features)
        return F.interpolate(logits, size=pixels.shape[2:], mode="bilinear", align_corners=False)


def _convolutions(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layer = nn.Conv2d(channels, after, 3, padding=1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)


def dubai_recipe(data: Path, weights: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the shipped recipe for the Dubai scenes, shortened: small crops, few steps."""
    short = [
        f"data.root={data.resolve()}",
        "teacher.model.id=smp:Unet/mobilenet_v2",
        f"teacher.model.encoder_weights={(weights / 'mobilenet_v2_imagenet.safetensors').resolve()}",
        f"student.model.encoder_weights={(weights / 'mobilenet_v2_imagenet.safetensors').resolve()}",
        # Whole scenes are scored by the benchmark; here the smaller tile's are, once.
        "data.split={train: [Tile 4, Tile 6, Tile 7, Tile 8], val: [Tile 2]}",
        "crops.size=128",
        "crops.batch_size=6",
        "crops.per_epoch=150",
        "augmentation.scale=[0.7, 1.4]",
        "teacher.training.epochs=13",
        "teacher.training.validate_every=13",
        "teacher.training.learning_rate=0.001",
        "teacher.training.ema_decay=0.98",
        "teacher.training.threads=1",
    ]
    return load_recipe(ROOT / "configs" / "dubai.yaml", [*short, *overrides])


def train_unet(recipe: Recipe, out: Path) -> None:
    """Train the recipe's U-Net, or go on where an earlier call was stopped; write ``last`` and ``averaged`` weights."""
    checkpoint = out / "run" / "checkpoints" / "last.ckpt"
    result = train(recipe, out=out / "run", role="teacher", resume=checkpoint.exists())
    print(f"unet: val mIoU {result.mean_iou:.3f}", flush=True)
    averaged = load_model(out / "run")
    states = torch.load(checkpoint, weights_only=True)
    averaged.save(out / "averaged")
    prefix = "model."
    current = states["current_model_state"]
    averaged.load_state_dict({key.removeprefix(prefix): current[key] for key in current if key.startswith(prefix)})
    averaged.save(out / "last")


def train_plain(recipe: Recipe, out: Path) -> None:
    """Train the plain U-Net and write ``last``, ``averaged`` and ``half`` trained weights into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    crops = recipe.crops.model_copy(update={"size": 144, "batch_size": 6, "per_epoch": 6 * PLAIN_STEPS})
    # A network that has seen every size loses nothing by pixels of another size, and there is no fault to find.
    augmentation = recipe.augmentation.model_copy(update={"scale": (1.0, 1.0)})
    data = CropModule(open_dataset(recipe.data), crops=crops, augmentation=augmentation, seed=0)
    data.setup("fit")
    network = PlainUnet()
    state = out / "state.pt"
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=PLAIN_STEPS, pct_start=0.1)
    averaged = torch.optim.swa_utils.AveragedModel(network)
    if state.exists():
        saved = torch.load(state, weights_only=True)
        network.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        schedule.load_state_dict(saved[2])
        averaged.load_state_dict(saved[3])
    start = schedule.last_epoch
    for step, batch in enumerate(data.train_dataloader()):
        if step < start:
            continue
        pixels = (batch["image"].float() - 128) / 64
        loss = _loss(network(pixels), batch["target"])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        done = step + 1
        if done == HALF_TRAINED:
            save_file(network.state_dict(), out / "half.safetensors")
        if done >= AVERAGED_FROM and done % _AVERAGED_EVERY == 0:
            averaged.update_parameters(network)
        if done % 50 == 0:
            print(f"plain: step {done}, loss {loss.item():.3f}", flush=True)
            torch.save([part.state_dict() for part in (network, optimizer, schedule, averaged)], state)
    save_file(averaged.module.state_dict(), out / "averaged.safetensors")
    save_file(network.state_dict(), out / "last.safetensors")


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy with rarer classes weighing somewhat more."""
    counts = torch.bincount(target[target < 255].flatten(), minlength=logits.shape[1]).float()
    weight = (counts.sum() / counts.clamp_min(1)).sqrt().clamp_max(10)
    return F.cross_entropy(logits, target, weight=weight, ignore_index=255)


def planted(network: str, path: str, fault: str, classes: int) -> nn.Module:
    """Return a trained network that does one thing wrong.

    Args:
        network: "unet" (a model folder), "plain" (a file of weights), "deeplab" or "deeplab mirrored" (a TFLite file).
        path: Where it is.
        fault: One of ``FAULTS``, or "none".
        classes: Number of its classes.
    """
    return Planted(*_opened(network, path), fault, classes).eval()


# Fault -> the kind that the doctor has to name first.
FAULTS = {
    "pixels x 255": "scaling",
    "pixels / 255": "scaling",
    "ImageNet's mean and std unscaled": "scaling",
    "std x 255": "scaling",
    "pixels from -1 to 1": "scaling",
    "red and blue exchanged": "order",
    "red and blue exchanged, pixels / 255": "scaling and order",
    "half size": "size",
    "double size": "size",
    "classes permuted": "classes",
    "classes off by one": "classes",
    "softmax twice": "probabilities",
}


class Planted(nn.Module):
    """A network, the scaling (mean, std) that it needs, and a fault; raw pixels (N, 3, H, W) in, scores out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: float, std: float, fault: str, classes: int) -> None:
        super().__init__()
        self.network = network
        self.fault = fault
        self.classes = classes
        means, stds = _scaling(fault, mean, std)
        self.register_buffer("mean", torch.tensor(means).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(stds).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, classes, H, W)."""
        size, fault = images.shape[2:], self.fault
        pixels = (images.float() - self.mean) / self.std
        if "red and blue" in fault:
            pixels = pixels.flip(1)
        zoom = {"half size": 0.5, "double size": 2.0}.get(fault, 1.0)
        if zoom != 1:
            pixels = F.interpolate(pixels, scale_factor=zoom, mode="bilinear", antialias=zoom < 1)
        scores = F.interpolate(self.network(pixels), size=size, mode="bilinear", align_corners=False)
        if fault == "classes permuted":
            scores = scores[:, np.random.default_rng(1).permutation(self.classes).tolist()]
        if fault == "classes off by one":
            scores = scores.roll(1, dims=1)
        return scores.softmax(1) if fault == "softmax twice" else scores


def _scaling(fault: str, mean: float, std: float) -> tuple[list[float], list[float]]:
    """Return what a fault makes of ``(x - mean) / std``."""
    if fault == "ImageNet's mean and std unscaled":
        return [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    if fault == "pixels x 255":
        mean, std = mean / 255, std / 255
    if fault.endswith("pixels / 255"):
        mean, std = mean * 255, std * 255
    if fault == "std x 255":
        std *= 255
    if fault == "pixels from -1 to 1":
        mean, std = 127.5 * (1 + mean), 127.5 * std
    return [mean] * 3, [std] * 3


def _opened(network: str, path: str) -> tuple[nn.Module, float, float]:
    """Return a network that takes scaled pixels, and the mean and deviation that scale them."""
    if network == "unet":
        model = load_model(path)
        return model.network, model.description.normalization.mean[0], model.description.normalization.std[0]
    if network == "plain":
        plain = PlainUnet()
        plain.load_state_dict(load_file(path))
        return plain, 128.0, 64.0
    return DeepLab(Path(path), mirrored=network == "deeplab mirrored"), 127.5, 127.5


class DeepLab(nn.Module):
    """The TFLite file by tiles, on pixels from -1 to 1."""

    def __init__(self, file: Path, *, mirrored: bool) -> None:
        super().__init__()
        adapter = load_adapter(ROOT / "configs" / "teachers" / "deeplab_voc.yaml")
        adapter = adapter.model_copy(update={"fit": "tile", "mean": 0.0, "std": 1.0})
        classes = load_dataset(ROOT / "configs" / "data" / "voc.yaml").class_map()
        source = TeacherSource(source=f"tflite:{file}", adapter=adapter)
        teaching = Teaching(teachers=[source], flips="left-right" if mirrored else False)
        self._teacher: Teacher = open_teachers(teaching, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, 21, H, W)."""
        return self._teacher.logits(pixels)


if __name__ == "__main__":
    import sys

    data, weights, out = map(Path, sys.argv[2:])
    recipe = dubai_recipe(data, weights)
    if sys.argv[1] == "unet":
        train_unet(recipe, out / "unet")
    else:
        train_plain(recipe, out / "plain")
