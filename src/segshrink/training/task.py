"""Training a segmentation network on labels, as a Lightning module."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from segshrink.classes import IGNORE_INDEX
from segshrink.config import Augmentation, Consistency, Training
from segshrink.data.mixing import blended, cut_mixed
from segshrink.errors import DataError, TrainingError
from segshrink.evaluation import Confusion
from segshrink.losses import WeightedTerm, build_term, label_terms
from segshrink.models import SegmentationModel
from segshrink.prediction import Predictor
from segshrink.prediction.runtimes.torch import TorchBackend
from segshrink.training.consistency import PSEUDO, SelfTeacher, consistency_loss
from segshrink.training.depthwise import QuickDepthwise
from segshrink.training.global_batch import Share, gathered_objects
from segshrink.training.network_logits import logits_of
from segshrink.training.optimizers import build_optimizer, build_schedule
from segshrink.working_size import Resize

Batch = Mapping[str, Any]
# Parameters that learn → what ``configure_optimizers`` of a Lightning module may return.
Optimizer = Callable[[list[nn.Parameter]], Any]
# What data loaders of torchgeo, Albumentations, transformers and others call images and labels.
_IMAGES, _TARGETS = ("image", "images", "pixel_values"), ("target", "mask", "labels", "masks", "label")
_LOGGER = logging.getLogger(__name__)


class SegmentationTask(lightning.LightningModule):
    """Trains a network on weighted terms; validates on whole scenes with the tiles that deployment uses.

    The network may be any module: it gives logits (N, C, h, w) of any size, as a tensor, as "out" or "logits" of a
    dictionary or an object, or first of a tuple or list; other outputs (auxiliary heads) are not trained. One channel z
    stands for two classes, with logits (0, z). A ``SegmentationModel`` takes raw pixels; any other network gets the
    batch's images as they are, in float32.

    Batches are pairs (images, targets, ...) or mappings: "image", "images" or "pixel_values" (N, bands, H, W), and
    "target", "mask", "masks", "label" or "labels" (N, H, W) or (N, 1, H, W), class indices, 255 or below 0 where
    unlabeled; what else they hold is left alone, but for ``inside`` (N, H, W) bool, False outside the scene, and
    ``sample`` (N,), numbers of the scenes. A validation batch with arrays of a whole scene has channels last: ``image``
    (H, W, bands), ``target`` (H, W).

    Several processes compute their own crops, and losses of the crops of all. Scores are those of all processes'
    scenes.

    Logged: ``train/loss`` and ``train/<term>`` per epoch, ``val/loss`` and ``val/<term>`` on crops, ``val/mean_iou`` on
    scenes in epochs that ``scores_scenes``, or on the images of the only validation loader; a term goes by its key in
    ``labeled_terms``.

    Args:
        model: The network to train.
        terms: Weighted losses; cross-entropy with weight 1 when None.
        training: Settings of the optimizer.
        optimizer: Given the parameters that learn, returns an optimizer, or whatever else ``configure_optimizers`` may
            return; None: as ``training`` says.
        seed: Random numbers inside the network (dropout) and of mixing derive from (seed, epoch, batch).
        augmentation: How crops are mixed with each other in training; None: they aren't.
        consistency: Learn from crops without labels by consistency; batches then hold ``recolored`` images, too. Logged
            as ``train/consistency``.

    Attributes:
        labeled_terms: The terms, each under a name of its own.
        resize: Working size at which crops come, while the network brings whole scenes there by itself.
    """

    def __init__(
        self,
        model: nn.Module,
        terms: Sequence[WeightedTerm] | None = None,
        *,
        training: Training | None = None,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        consistency: Consistency | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.augmentation = augmentation or Augmentation()
        self.self_teacher = None if consistency is None else SelfTeacher(model, consistency)
        self.terms = tuple(terms) if terms is not None else (WeightedTerm(1.0, build_term("cross_entropy")),)
        self.labeled_terms = label_terms(self.terms)
        self.settings = training or Training()
        self.seed = seed
        self.sample_names: Sequence[str] = ()
        self.resize: Resize | None = None
        self._optimizer = optimizer
        if optimizer is None:  # a wrong name is told before anything is loaded
            build_optimizer(self.settings, [nn.Parameter(torch.zeros(1))])
            build_schedule(self.settings, total=100, epochs=10)
        self._confusion: Confusion | None = None
        self._step_seed = seed
        self._steps_before = 0

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's logits (N, C, H, W), float32, at the images' size.

        Raises:
            ModelError: The network gives something else.
        """
        with nullcontext() if self.settings.compile else QuickDepthwise():
            return logits_of(self.model, images)

    def term_values(self, batch: Batch) -> dict[str, Tensor]:
        """Return the unweighted value of every term of a batch, with its graph, by the keys of ``labeled_terms``."""
        return self.compare(batch)[1]

    def compare(self, batch: Batch, share: Share | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the model's logits of a batch, and what ``term_values`` does.

        Args:
            batch: Of all processes.
            share: The crops of it that this process computes; None: all.
        """
        logits, target = self.shared_logits(batch, share or Share()), batch["target"].long()
        return logits, {
            label: term(logits, None, target, batch["inside"]) for label, (_, term) in self.labeled_terms.items()
        }

    def shared_logits(self, batch: Batch, share: Share) -> Tensor:
        """Return the model's logits of a batch of which each process computes its share."""
        logits = share.gathered(self(batch["image"][share.own]))
        if len(share.counts) > 1:  # what losses draw is drawn alike by all
            torch.manual_seed(self._step_seed)
        return logits

    def configure_optimizers(self) -> Any:
        """The optimizer and schedule that the settings name, stepped at every batch; no decay on norms and biases."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self._optimizer is not None:
            return self._optimizer(parameters)
        optimizer = build_optimizer(self.settings, parameters)
        total = self.trainer.estimated_stepping_batches
        if math.isinf(total):  # nobody says how long this training is
            return optimizer
        factor = build_schedule(self.settings, total=int(total), epochs=self.trainer.max_epochs or 1)
        schedule = LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def scores_scenes(self) -> bool:
        """Whether this epoch's validation measures whole scenes: every ``validate_every`` epochs, and the last."""
        epoch = self.current_epoch + 1
        last = self.trainer.state.fn != TrainerFn.FITTING or epoch == self.trainer.max_epochs
        return last or epoch % self.settings.validate_every == 0

    def on_train_batch_start(self, batch: Batch | Sequence[Any], batch_idx: int) -> None:
        """Make the network's own randomness a function of (seed, epoch, batch), so that resuming changes nothing."""
        self._steps_before = self.trainer.global_step
        self._step_seed = derived_seed(self.seed, self.current_epoch, batch_idx)
        torch.manual_seed(derived_seed(self._step_seed, self.global_rank) if self.global_rank else self._step_seed)
        if self.current_epoch == batch_idx == 0:
            for notice in self.units_notices(named_parts(batch)["image"]):
                _LOGGER.warning(notice)

    def units_notices(self, images: Tensor) -> list[str]:
        """Say whose normalization these images contradict."""
        notice = units_notice(self.model, images, "the student")
        return [] if notice is None else [notice]

    def training_step(self, batch: Batch | Sequence[Any], batch_idx: int) -> Tensor:
        """Return the weighted sum of the terms; every term is logged on its own.

        Raises:
            TrainingError: A term is NaN or infinite; names the step, the term and the scenes.
        """
        batch = named_parts(batch)
        share = Share.of(batch["image"]) if self.trainer.world_size > 1 else Share()
        batch = self._mixed(share.gathered_batch(batch), batch_idx, share)
        _, loss, values = self._weighted(batch, share)
        if not torch.isfinite(loss):
            raise TrainingError(self._not_finite(values, batch))
        for name, value in {"loss": loss, **values}.items():
            size = len(batch["image"])
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let the network's moving average follow it after each step of the optimizer."""
        if self.self_teacher is not None and self.trainer.global_step > self._steps_before:
            self.self_teacher.update(self.model)

    def validation_step(self, batch: Batch | Sequence[Any], batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Score a scene at native resolution, or take the losses of a batch of crops.

        Returns:
            The classes of a scene, (H, W) uint8; None of crops, and in epochs in which no scene is scored.
        """
        batch = named_parts(batch)
        if batch["image"].ndim == 3:
            return self._score_scene(batch) if self.scores_scenes else None
        logits, loss, values = self._weighted(batch)
        if len(self.trainer.num_val_batches) == 1:
            self._score(logits.argmax(1), batch["target"].long(), classes=logits.shape[1])
        for name, value in {"loss": loss, **values}.items():
            self.log(f"val/{name}", value, add_dataloader_idx=False, sync_dist=True, batch_size=len(batch["image"]))
        return None

    def on_validation_epoch_start(self) -> None:
        """Begin a new confusion matrix over the whole validation set."""
        self._confusion = None

    def on_validation_epoch_end(self) -> None:
        """Log the mIoU over the whole validation set, of which each process scored its share."""
        parts = [self._confusion] if self.trainer.world_size == 1 else gathered_objects(self._confusion)
        counted = [part for part in parts if part is not None]
        for part in counted[1:]:
            counted[0].merge(part)
        if counted and counted[0].matrix.sum():
            score = float(counted[0].scores().mean_iou)
            # Every process has it; the mean of three equal numbers may differ from them.
            self.log("val/mean_iou", score, prog_bar=True, reduce_fx="max", sync_dist=True)

    def _weighted(self, batch: Batch, share: Share | None = None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return logits, the weighted sum of the terms, and each by itself without its graph."""
        logits, values = self.compare(batch, share)
        loss = torch.stack([weight * values[label] for label, (weight, _) in self.labeled_terms.items()]).sum()
        if self.self_teacher is not None and PSEUDO in batch:
            values["consistency"] = consistency_loss(logits, batch[PSEUDO], batch["target"])
            loss = loss + self.self_teacher.settings.weight * values["consistency"]
        return logits, loss, {label: value.detach() for label, value in values.items()}

    def _mixed(self, batch: Batch, batch_idx: int, share: Share) -> Batch:
        """Return a batch as the network learns from it: in other colors, with pseudo-labels, and mixed."""
        labels = ["target"]
        if self.self_teacher is not None:
            inside = None if batch["inside"] is None else batch["inside"][share.own]
            pseudo = self.self_teacher.labels(batch["image"][share.own], batch["target"][share.own], inside)
            pseudo = share.gathered(pseudo)
            batch = {**batch, PSEUDO: pseudo, "image": batch["recolored"]}
            labels.append(PSEUDO)
        settings = self.augmentation
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.current_epoch, batch_idx, "mixing"))
        if settings.cutmix:
            batch = cut_mixed(batch, settings.cutmix, generator)
        if settings.mixup:
            batch = blended(batch, settings.mixup, generator, labels=labels)
        return batch

    def _score_scene(self, batch: Batch) -> NDArray[np.uint8]:
        precision = "bf16" if str(self.trainer.precision).startswith("bf16") else "32"
        model = self.model
        if isinstance(model, SegmentationModel) and self.resize is not None:
            model = model.with_resize(self.resize)
        backend = TorchBackend(model, precision=precision, device=str(self.device))
        classes = Predictor(backend).predict_classes(batch["image"])
        self._score(classes, batch["target"], classes=backend.num_classes)
        return classes

    def _score(self, predicted: Any, target: Any, *, classes: int) -> None:
        if self._confusion is None:
            self._confusion = Confusion(classes)
        self._confusion.update(predicted, target)

    def _not_finite(self, values: Mapping[str, Tensor], batch: Batch) -> str:
        terms = [name for name, value in values.items() if not torch.isfinite(value)]
        samples = batch.get("sample")
        numbers = sorted({int(number) for number in samples}) if isinstance(samples, Tensor) else []
        names = self.sample_names or getattr(getattr(self.trainer, "datamodule", None), "sample_names", ())
        images = [names[number] if number < len(names) else str(number) for number in numbers]
        where = f" on {', '.join(images)}" if images else ""
        return (
            f"the loss is not finite at step {self.global_step}: {', '.join(terms)}{where}; "
            "lower training.learning_rate, set training.precision=32, or look at these images"
        )


def named_parts(batch: Batch | Sequence[Any]) -> Batch:
    """Give the parts of a batch their names, whatever data loader it comes from.

    Returns:
        A mapping with ``image``, ``target`` (N, H, W), ``inside`` (None: not told), and what else there was.

    Raises:
        DataError: Images or targets are missing; names what there is.
    """
    if not isinstance(batch, Mapping):
        batch = dict(zip(("image", "target"), batch, strict=False))
    if "inside" in batch and "target" in batch:  # one of this program's own
        return batch
    image, target = (next((key for key in keys if key in batch), None) for keys in (_IMAGES, _TARGETS))
    if image is None or target is None:
        missing, parts = "images" if image is None else "targets", ", ".join(map(str, batch)) or "nothing"
        raise DataError(
            f"a batch has no {missing}, found {parts}; give pairs of images and targets, or mappings with 'image' and "
            "'mask'"
        )
    labels = batch[target]
    if isinstance(labels, Tensor):
        singletons = [side for side in (1, 3) if labels.ndim == 4 and labels.shape[side] == 1]
        labels = (labels.squeeze(singletons[0]) if singletons else labels).long()
        labels = labels.masked_fill(labels < 0, IGNORE_INDEX)
    return {**batch, "image": batch[image], "target": labels, "inside": None}


def units_notice(network: nn.Module, images: Tensor, name: str) -> str | None:
    """Say where images look normalized and the network normalizes them again, or look raw and nobody does.

    Args:
        network: A ``SegmentationModel`` normalizes raw pixels itself, any other network takes what it gets.
        images: (N, bands, H, W).
        name: How the sentence calls the network.
    """
    if not isinstance(network, SegmentationModel):
        if images.dtype != torch.uint8:
            return None
        return (
            f"{name} ({type(network).__name__}) gets pixels from 0 to 255 as they are; if it was made for normalized "
            "ones, normalize them in the data loader, or wrap it: SegmentationModel.wrap(network, ...)"
        )
    if network.description.dtype != "uint8" or not images.is_floating_point() or not images.numel():
        return None
    low, high = (float(value) for value in torch.aminmax(images))
    if low >= 0 and high > 1:
        return None
    return (
        f"{name} ({network.description.id}) normalizes raw pixels from 0 to 255 itself, but gets {low:.3g} to "
        f"{high:.3g}; leave normalization out of the data loader, or give its bare network"
    )


def derived_seed(*parts: object) -> int:
    """Return the seed of the random numbers that belong to a seed, an epoch and a batch, or whatever is given."""
    return int.from_bytes(hashlib.sha256(" ".join(str(part) for part in parts).encode()).digest()[:7])
