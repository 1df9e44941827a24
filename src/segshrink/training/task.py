"""Supervised training of a segmentation model as a Lightning module."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from segshrink.config import Training
from segshrink.errors import TrainingError
from segshrink.evaluation import Confusion
from segshrink.losses import WeightedTerm, build_term, label_terms
from segshrink.models import SegmentationModel
from segshrink.prediction import Predictor
from segshrink.prediction.logits import most_likely
from segshrink.prediction.runtimes.torch import TorchBackend
from segshrink.training.schedule import warmup_cosine

Batch = Mapping[str, Any]


class SegmentationTask(lightning.LightningModule):
    """Trains ``model`` on weighted terms; validates on whole scenes with the tiles that deployment uses.

    Batches are mappings: ``image`` (N, bands, H, W) raw pixels, ``target`` (N, H, W) class index with 255 = ignore,
    ``inside`` (N, H, W) bool, False outside the scene, ``sample`` (N,) numbers of the scenes. Pairs (image, target),
    mappings with a ``mask`` for the target, and such without ``inside`` or ``sample`` will do. A validation batch with
    arrays of a whole scene has channels last: ``image`` (H, W, bands), ``target`` (H, W).

    Logged: ``train/loss`` and ``train/<term>`` per epoch, ``val/loss`` and ``val/<term>`` on crops, ``val/mean_iou`` on
    scenes in epochs that ``scores_scenes``, or on the images of the only validation loader; a term goes by its key in
    ``labelled_terms``.

    Args:
        model: The model to train.
        terms: Weighted losses; cross-entropy with weight 1 when None.
        training: Optimiser settings.
        seed: Random numbers inside the network (dropout) derive from (seed, epoch, batch).

    Attributes:
        labelled_terms: The terms, each under a name of its own.
    """

    def __init__(
        self,
        model: SegmentationModel,
        terms: Sequence[WeightedTerm] | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.terms = tuple(terms) if terms is not None else (WeightedTerm(1.0, build_term("cross_entropy")),)
        self.labelled_terms = label_terms(self.terms)
        self.settings = training or Training()
        self.seed = seed
        self.sample_names: Sequence[str] = ()
        self._confusion = Confusion(model.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's logits (N, C, H, W)."""
        logits: Tensor = self.model(images)
        return logits

    def term_values(self, batch: Batch) -> dict[str, Tensor]:
        """Return the unweighted value of every term of a batch, with its graph, by the keys of ``labelled_terms``."""
        target = batch["target"].long()
        student = self.model(batch["image"])
        return {label: term(student, None, target, batch["inside"]) for label, (_, term) in self.labelled_terms.items()}

    def configure_optimizers(self) -> Any:
        """AdamW with linear warm-up and a half cosine, stepped at every batch; no decay on norms and biases."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = AdamW(groups, lr=self.settings.learning_rate)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, partial(warmup_cosine, total=total, warmup=self.settings.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def scores_scenes(self) -> bool:
        """Whether this epoch's validation measures whole scenes: every ``validate_every`` epochs, and the last."""
        epoch = self.current_epoch + 1
        last = self.trainer.state.fn != TrainerFn.FITTING or epoch == self.trainer.max_epochs
        return last or epoch % self.settings.validate_every == 0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make the network's own randomness a function of (seed, epoch, batch), so that resuming changes nothing."""
        torch.manual_seed(derived_seed(self.seed, self.current_epoch, batch_idx))

    def training_step(self, batch: Batch | Sequence[Any], batch_idx: int) -> Tensor:
        """Return the weighted sum of the terms; every term is logged on its own.

        Raises:
            TrainingError: A term is NaN or infinite; names the step, the term and the scenes.
        """
        batch = named_parts(batch)
        loss, values = self._terms_of(batch)
        if not torch.isfinite(loss):
            raise TrainingError(self._not_finite(values, batch))
        size = len(batch["image"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=size)
        for name, value in values.items():
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch | Sequence[Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a scene at native resolution, or take the losses of a batch of crops."""
        batch = named_parts(batch)
        if batch["image"].ndim == 3:
            if self.scores_scenes:
                self._score_scene(batch)
            return
        loss, values = self._terms_of(batch)
        if len(self.trainer.num_val_batches) == 1:
            self._confusion.update(self.model(batch["image"]).argmax(1), batch["target"].long())
        for name, value in {"loss": loss, **values}.items():
            self.log(f"val/{name}", value, add_dataloader_idx=False, batch_size=len(batch["image"]))

    def on_validation_epoch_start(self) -> None:
        """Begin a new confusion matrix over the whole validation set."""
        self._confusion = Confusion(self.model.num_classes)

    def on_validation_epoch_end(self) -> None:
        """Log the mIoU over the whole validation set."""
        if self._confusion.matrix.sum():
            self.log("val/mean_iou", float(self._confusion.scores().mean_iou), prog_bar=True)

    def _terms_of(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        values = self.term_values(batch)
        loss = torch.stack([weight * values[label] for label, (weight, _) in self.labelled_terms.items()]).sum()
        return loss, {label: value.detach() for label, value in values.items()}

    def _score_scene(self, batch: Batch) -> None:
        precision = "bf16" if str(self.trainer.precision).startswith("bf16") else "32"
        backend = TorchBackend(self.model, precision=precision, device=str(self.device))
        self._confusion.update(most_likely(Predictor(backend).predict_logits(batch["image"])), batch["target"])

    def _not_finite(self, values: Mapping[str, Tensor], batch: Batch) -> str:
        bad = [name for name, value in values.items() if not torch.isfinite(value)]
        numbers = sorted({int(number) for number in batch.get("sample", ())})
        known = self.sample_names or getattr(getattr(self.trainer, "datamodule", None), "sample_names", ())
        names = [known[number] if number < len(known) else str(number) for number in numbers]
        return (
            f"the loss is not finite at step {self.global_step}: {', '.join(bad)} on {', '.join(names)}; "
            "lower training.learning_rate, set training.precision=32, or look at these images"
        )


def named_parts(batch: Batch | Sequence[Any]) -> Batch:
    """Give the parts of a batch their names, whatever data loader it comes from."""
    if isinstance(batch, Mapping):
        return {"inside": None, "target": batch.get("mask"), **batch}
    return {"image": batch[0], "target": batch[1], "inside": None}


def derived_seed(*parts: object) -> int:
    """Return the seed of the random numbers that belong to a seed, an epoch and a batch, or whatever is given."""
    return int.from_bytes(hashlib.sha256(" ".join(str(part) for part in parts).encode()).digest()[:7])
