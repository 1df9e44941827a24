"""Quantisation-aware distillation: the float32 model, or its teacher, teaches the student whose numbers are rounded."""

from __future__ import annotations

import copy
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from segshrink.compression.quantization.fake_quantization import FakeQuantization, fake_quantized
from segshrink.config import DatasetDescription, Distillation, Learner, ModelChoice, Recipe, Training
from segshrink.data import CropModule, Dataset, open_dataset
from segshrink.errors import ConfigError
from segshrink.losses import WeightedTerm
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher, TorchTeacher, open_teachers
from segshrink.training import Distiller
from segshrink.training.callbacks import InterruptBetweenSteps, Progress, StepProgress
from segshrink.training.hardware import accelerator
from segshrink.training.lightning_fit import fit
from segshrink.training.terms import student_terms

# Against a training from the start: the weights are nearly right already.
SHARE_OF_EPOCHS = 1 / 6
SHARE_OF_LEARNING_RATE = 0.05
# Batches that the ranges of activations are observed on before rounding begins.
OBSERVED_BATCHES = 8


def distill_rounded(
    model: SegmentationModel,
    data: DatasetDescription,
    *,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> SegmentationModel:
    """Train a copy of a model for its life in 8 bits.

    The copy rounds weights and activations while it learns, for a sixth of the epochs of the recipe's student and with
    a twentieth of its learning rate, in 32 bits, with batch normalisation frozen. Its teacher is the recipe's where
    it names one, else the model itself as it was.

    After Krishnamoorthi, 2018, arXiv:1806.08342 (quantisation-aware training), with the terms of the recipe's
    distillation.

    Args:
        model: The model; it is left as it is.
        data: The data set; its training and unlabelled images teach.
        recipe: Crops, augmentation, terms and training of the model; None takes the defaults.
        progress: Called after every step with (steps done, steps in all, a short text).

    Returns:
        A plain model with the trained float32 weights, for post-training quantisation.

    Raises:
        ConfigError: The recipe's terms can't be served by this teacher.
        TrainingError: The loss became NaN or infinite.
    """
    recipe = _recipe(model, data, recipe)
    dataset = open_dataset(data, model=model.description)
    student = copy.deepcopy(model)
    student.requires_grad_(True)
    teacher, own = _teacher(model, recipe, dataset)
    crops = CropModule(
        dataset, crops=recipe.crops, augmentation=recipe.augmentation, seed=recipe.seed, use_unlabeled=True
    )
    crops.setup("fit")
    task = Distiller(student, teacher, _terms(recipe, teacher, own=own), training=_short(recipe), seed=recipe.seed)
    task.sample_names = crops.sample_names
    student.to(memory_format=torch.channels_last)
    with fake_quantized(student.network) as rounding, torch.random.fork_rng(devices=[]):
        _observe(student.eval(), rounding, crops)
        student.train()
        callbacks = [FrozenBatchNorm(), InterruptBetweenSteps(), *([StepProgress(progress)] if progress else [])]
        _fit(task, crops, callbacks)
    return student.cpu().eval()


class FrozenBatchNorm(Callback):
    """Keeps batch normalisation as it will be folded: by its running averages; its scales and biases learn."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Switch the layers, which the trainer switched on, off again."""
        for module in pl_module.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _recipe(model: SegmentationModel, data: DatasetDescription, recipe: Recipe | None) -> Recipe:
    if recipe is None:
        return Recipe(data=data, student=Learner(model=ModelChoice(id=model.description.id)))
    if recipe.student is None:
        raise ConfigError(f"recipe '{recipe.name}' has no 'student' section to say how to train; add one")
    return recipe.model_copy(update={"data": data})


def _teacher(model: SegmentationModel, recipe: Recipe, dataset: Dataset) -> tuple[Teacher, bool]:
    """Return the teacher, and whether it is the model itself.

    Teachers that answer about whole scenes only can't follow crops here, where there is no cache.
    """
    if recipe.distillation.teachers:
        teacher = open_teachers(recipe.distillation, dataset.classes, bands=dataset.bands)
        if not teacher.whole_scenes:
            return teacher, False
    return TorchTeacher(copy.deepcopy(model), output="logits", name="the float32 model"), True


def _terms(recipe: Recipe, teacher: Teacher, *, own: bool) -> tuple[WeightedTerm, ...]:
    """Return the recipe's terms; where the model is its own teacher, terms on another's features give way."""
    assert recipe.student is not None  # noqa: S101  # _recipe saw to it
    section = recipe.distillation.model_copy(update={"teacher_cache": False})
    if own and any(term.on_features for _, term in student_terms(section, recipe.student.terms)):
        section = Distillation(alpha=section.alpha, temperature=section.temperature)
    return student_terms(section, recipe.student.terms, teacher)


def _short(recipe: Recipe) -> Training:
    assert recipe.student is not None  # noqa: S101  # _recipe saw to it
    training = recipe.student.training
    changes: dict[str, Any] = {
        "epochs": max(1, round(SHARE_OF_EPOCHS * training.epochs)),
        "learning_rate": SHARE_OF_LEARNING_RATE * training.learning_rate,
        # bf16 has 8 bits of mantissa, too few to tell neighbouring steps of 8-bit numbers apart.
        "precision": "32",
        "ema_decay": None,
        "compile": False,
    }
    return training.model_copy(update=changes)


def _observe(student: SegmentationModel, rounding: FakeQuantization, crops: CropModule) -> None:
    """Let a few batches of crops through, so that rounding begins with ranges that fit."""
    with rounding.observing(), torch.no_grad():
        for number, batch in enumerate(crops.train_dataloader()):
            if number == OBSERVED_BATCHES:
                break
            student(batch["image"])


def _fit(task: Distiller, crops: CropModule, callbacks: list[Callback]) -> None:
    trainer = lightning.Trainer(
        max_epochs=task.settings.epochs,
        precision="32-true",
        accelerator=accelerator(),
        devices=1,
        callbacks=callbacks,
        limit_val_batches=0,
        gradient_clip_val=task.settings.clip_norm,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    fit(trainer, task, crops)
