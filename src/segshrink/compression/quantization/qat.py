"""Quantization-aware distillation: the float32 model, or its teacher, teaches a copy with simulated int8."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from torch import nn

from segshrink.compression.quantization.fake_quantization import fake_quantized, observing
from segshrink.config import Distillation, Learner, ModelChoice, Recipe
from segshrink.data import CropModule, Dataset
from segshrink.errors import ConfigError
from segshrink.losses import WeightedTerm
from segshrink.models import SegmentationModel
from segshrink.teachers import Teacher, TorchTeacher, open_teachers
from segshrink.teachers.torch_teacher import for_crops
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


def quantization_aware_distillation(
    model: SegmentationModel,
    dataset: Dataset,
    *,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> SegmentationModel:
    """Fine-tune a copy of a model with simulated int8 (quantization-aware training).

    The copy rounds weights and activations while it learns, for a sixth of the epochs of the recipe's student and with
    a twentieth of its learning rate, in 32 bits, with batch normalization frozen. Its teacher is the recipe's where
    it names one, else the model itself as it was.

    After Krishnamoorthi, 2018, arXiv:1806.08342 (quantization-aware training), with the terms of the recipe's
    distillation.

    Args:
        model: The model; it is left as it is.
        dataset: The data set, opened for the model; it is trained on its training and unlabeled images.
        recipe: Crops, augmentation, terms and training of the model; None takes the defaults.
        progress: Called after every step with (steps done, steps in all, a short text).

    Returns:
        A plain model with the trained float32 weights, for post-training quantization.

    Raises:
        ConfigError: The recipe has no student, or this teacher can't serve its terms.
        TrainingError: The loss became NaN or infinite.
    """
    if recipe is None:
        recipe = Recipe(data=dataset.description, student=Learner(model=ModelChoice(id=model.description.id)))
    if recipe.student is None:
        raise ConfigError(f"recipe '{recipe.name}' has no 'student' section to say how to train; add one")
    learner = recipe.student
    resize = model.description.resize
    dataset = replace(dataset, description=dataset.description.model_copy(update={"resize": resize}))
    student = copy.deepcopy(model).with_resize(None)  # as crops come at the working size
    student.requires_grad_(True)
    teacher, terms = _teacher(model, recipe.distillation, learner, dataset)
    training = learner.training.model_copy(
        update={
            "epochs": max(1, round(SHARE_OF_EPOCHS * learner.training.epochs)),
            "learning_rate": SHARE_OF_LEARNING_RATE * learner.training.learning_rate,
            # bf16 has 8 bits of mantissa, too few to tell neighboring steps of 8-bit numbers apart.
            "precision": "32",
            "ema_decay": None,
            "compile": False,
        }
    )
    crops = CropModule(
        dataset, crops=recipe.crops, augmentation=recipe.augmentation, seed=recipe.seed, use_unlabeled=True
    )
    crops.setup("fit")
    task = Distiller(student, teacher, terms, training=training, seed=recipe.seed)
    task.sample_names = crops.sample_names
    student.to(memory_format=torch.channels_last)
    with fake_quantized(student.network) as inputs, torch.random.fork_rng(devices=[]):
        student.eval()
        with observing(inputs), torch.no_grad():
            for batch in islice(crops.train_dataloader(), OBSERVED_BATCHES):
                student(batch["image"])
        student.train()
        callbacks = [FrozenBatchNorm(), InterruptBetweenSteps(), *([StepProgress(progress)] if progress else [])]
        trainer = lightning.Trainer(
            max_epochs=training.epochs,
            precision="32-true",
            accelerator=accelerator(),
            devices=1,
            plugins=[LightningEnvironment()],  # alone, whatever scheduler is around
            callbacks=callbacks,
            limit_val_batches=0,
            gradient_clip_val=training.clip_norm,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        fit(trainer, task, crops)
    return student.with_resize(resize).cpu().eval()


class FrozenBatchNorm(Callback):
    """Lets batch normalization use its running averages, with which it will be folded; scales and biases learn."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Switch the layers, which the trainer switched to training, back to evaluation."""
        for module in pl_module.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _teacher(
    model: SegmentationModel, section: Distillation, learner: Learner, dataset: Dataset
) -> tuple[Teacher, tuple[WeightedTerm, ...]]:
    """Return the recipe's teacher, else the model itself, and the terms.

    Teachers that answer about whole scenes only can't follow crops here, where there is no cache. Where the model is
    the teacher, terms on the features of another teacher give way to the default ones.
    """
    section = section.model_copy(update={"teacher_cache": False})
    if section.teachers:
        teacher = open_teachers(section, dataset.classes, bands=dataset.bands)
        if not teacher.whole_scenes:
            teacher = for_crops(teacher, model.description.resize)
            return teacher, student_terms(section, learner.terms, teacher)
    if any(term.on_features for _, term in student_terms(section, learner.terms)):
        section = Distillation(alpha=section.alpha, temperature=section.temperature)
    itself = TorchTeacher(copy.deepcopy(model).with_resize(None), output="logits", name="the float32 model")
    return itself, student_terms(section, learner.terms, itself)
