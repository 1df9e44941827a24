"""Trainings in one process and in two, started by torchrun: ``two_processes.py RECIPES OUT``.

Writes into OUT a run folder for each, and what was found about batches of unequal size.
"""

import json
import sys
from pathlib import Path

import lightning
import torch
from torch import nn
from torch.nn import functional

from segshrink.config import Recipe
from segshrink.config.launch import Launch
from segshrink.data import open_dataset
from segshrink.losses import WeightedTerm, build_term
from segshrink.models import build_model
from segshrink.teachers import TorchTeacher
from segshrink.training import Distiller, train
from segshrink.training.processes import Environment, Processes, follow, together
from segshrink.user_code import is_trusted, trusted_functions


def normalize(self, features):
    """Batch normalization with fixed averages: features of a crop don't depend on the other crops of its process."""
    return functional.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias)


nn.BatchNorm2d.forward = normalize


class Recorder(lightning.Callback):
    """Notes what every step sees and learns."""

    def __init__(self, losses):
        self.losses = losses

    def on_train_batch_end(self, trainer, task, outputs, batch, index):
        self.losses.append(float(outputs["loss"]))


def teacher_of(recipe):
    classes = open_dataset(recipe.data).classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_model("unet", classes, options={"width": 6, "depth": 2})
    return TorchTeacher(network, name="stand-in")


def distiller():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student, teacher = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
    names = ("cross_entropy", "dice", "lovasz", "pixel_kl", "channel_kl", "dist")
    return Distiller(student, teacher, [WeightedTerm(1.0, build_term(name)) for name in names])


def batches():
    """Two steps of five crops, with labels of which every crop has another share."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2):
        target = torch.randint(0, 3, (5, 8, 8), generator=generator)
        for crop, ignored in enumerate((0, 10, 30, 50, 64)):
            target[crop].view(-1)[:ignored] = 255
        found.append((torch.randn(5, 3, 8, 8, generator=generator), target))
    return found


def fit_unequal(processes: Processes, out: Path, count: int = 2):
    """Fit with three crops a step in one process and two in the other."""
    own = {1: slice(None), 2: (slice(0, 3), slice(3, 5))[processes.launch.rank]}[count]
    loader = torch.utils.data.DataLoader([(image[own], target[own]) for image, target in batches()], batch_size=None)
    task, losses = distiller(), []
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=count,
        strategy="ddp" if count > 1 else "auto",
        plugins=[Environment(processes.launch)],
        callbacks=[Recorder(losses)],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, loader, loader)
    (out / f"trusted-{count}-{processes.launch.rank}").write_text(str(is_trusted("nets:small")))
    if processes.launch.rank == 0:
        weights = torch.cat([p.detach().flatten() for p in task.parameters()]).tolist()
        score = float(trainer.callback_metrics["val/mean_iou"])
        (out / f"unequal-{count}.json").write_text(json.dumps({"losses": losses, "weights": weights, "score": score}))


def run(recipes: Path, out: Path, launch: Launch) -> None:
    for count in (1, 2):
        for name, content in json.loads(recipes.read_text()).items():
            role = content.pop("role")
            content["student"]["training"]["devices"] = count
            recipe = Recipe.model_validate(content)
            teacher = teacher_of(recipe) if role == "student" else None
            losses = []
            train(recipe, out=out / f"{name}-{count}", role=role, teacher=teacher, callbacks=[Recorder(losses)])
            (out / f"{name}-{count}/losses.json").write_text(json.dumps(losses))
        work = Fit(out, count)
        with trusted_functions("nets:small"), together(launch, count, work, threads=1) as processes:
            work(processes)


class Fit:
    """``fit_unequal``, to be sent."""

    def __init__(self, out, count):
        self.out, self.count = out, count

    def __call__(self, processes):
        fit_unequal(processes, self.out, self.count)


if __name__ == "__main__":
    import os

    started = Launch.of(os.environ)
    torch.set_num_threads(1)
    if started.rank:
        follow()
    else:
        run(Path(sys.argv[1]), Path(sys.argv[2]), started)
