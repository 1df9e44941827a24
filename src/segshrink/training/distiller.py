"""Knowledge distillation as a Lightning module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback
from torch import Tensor, nn

from segshrink.config import Augmentation, Consistency, Training
from segshrink.errors import ConfigError, ModelError
from segshrink.losses import WeightedTerm, terms_from
from segshrink.models.dry_run import bands_of
from segshrink.teachers import Teacher, TeacherCache, TorchTeacher
from segshrink.teachers.torch_teacher import AdaptedNetwork
from segshrink.training.features import TapPair, check_aligned, feature_channels
from segshrink.training.global_batch import Share
from segshrink.training.task import Batch, Optimizer, SegmentationTask, derived_seed, units_notice
from segshrink.training.terms import check_teacher

# Key of a batch under which a TeacherCache's codes (N, C + 1, H, W) travel with the images.
CACHED = "teacher"


class Distiller(SegmentationTask):
    """Trains a student on the true labels and on what a frozen teacher answers, or shows inside.

    By default ``alpha * cross_entropy + (1 - alpha) * pixel_kl(temperature)`` after Hinton et al., Distilling the
    Knowledge in a Neural Network, 2015, with the T² factor on, as a mean over pixels. The teacher sees the same pixels
    as the student. Any network, batch and optimizer will do, see ``SegmentationTask``.

    Terms on features tap both networks for the length of a fit. What they need to compare them is in ``adapters``,
    found out by a dry run, trained by the same optimizer, saved in checkpoints but not with the student's model.

    Where the teacher knows some of the classes only, terms on logits compare those: the student's logits of others get
    no gradient from them, and pixels labeled as one of the others don't count.

    Args:
        student: The network to train.
        teacher: A teacher, or any network, whose channels are the student's classes in the same order; it is frozen.
        terms: Weighted losses that replace ``alpha`` and ``temperature``.
        alpha: Share of the true-label loss, in [0, 1], as in Keras's distillation tutorial; 1 - alpha is the share of
            the distillation loss, which DeiT and RepDistiller call alpha.
        temperature: Softens both distributions, > 0.
        training: Settings of the optimizer.
        optimizer: Given the parameters that learn, returns an optimizer; None: as ``training`` says.
        seed: Random numbers inside the student derive from (seed, epoch, batch), the adapters' first weights from it
            and their term's name.
        augmentation: How crops are mixed with each other; MixUp wants a teacher that is asked about the blend.
        consistency: Learn from crops without labels by the student's own average, too.

    Attributes:
        teacher: What the student learns from.
        adapters: Modules of terms on features, by the terms' names ("." written "/").

    Raises:
        ModelError: Student and teacher have different numbers of classes (at the first batch).
        ConfigError: ``alpha`` or ``temperature`` is out of range, a tap doesn't exist, or the teacher has no features,
            or too few classes, for a term.

    Example:
        >>> student, teacher = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        >>> list(Distiller(student, teacher).labeled_terms)
        ['cross_entropy', 'pixel_kl']
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | nn.Module,
        terms: Sequence[WeightedTerm] | None = None,
        *,
        alpha: float = 0.5,
        temperature: float = 2.0,
        training: Training | None = None,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        consistency: Consistency | None = None,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha must lie in [0, 1], found {alpha}")
        if temperature <= 0:
            raise ConfigError(f"temperature must be positive, found {temperature}")
        if terms is None:
            terms = terms_from(alpha=alpha, temperature=temperature)
        super().__init__(
            student,
            terms,
            training=training,
            optimizer=optimizer,
            seed=seed,
            augmentation=augmentation,
            consistency=consistency,
        )
        self.teacher = teacher if isinstance(teacher, Teacher) else TorchTeacher(teacher)
        check_teacher(self.teacher, self.terms, cached=True)  # answers about whole scenes come with the batches
        self._known = None if len(self.teacher.known) == len(self.teacher.classes) else self.teacher.known
        self._on_features = {label: term for label, (_, term) in self.labeled_terms.items() if term.on_features}
        self._taps: TapPair | None = None
        self.adapters = self._build_adapters()

    def setup(self, stage: str) -> None:
        """Put the teacher where the student is."""
        self.teacher.to(self.device)

    def configure_callbacks(self) -> list[Callback]:
        """Set the taps when a fit starts, and remove them when it ends, however it ends."""
        if not self._on_features:
            return []
        close = lambda *_: self.close_taps()  # noqa: E731
        return [LambdaCallback(on_fit_start=lambda *_: self.open_taps(), on_fit_end=close, on_exception=close)]

    def units_notices(self, images: Tensor) -> list[str]:
        """Say whose normalization these images contradict, the student's or the teacher's."""
        network = self.teacher.module
        if network is None or isinstance(network, AdaptedNetwork) or isinstance(self.teacher, TeacherCache):
            return super().units_notices(images)
        notice = units_notice(network, images, "the teacher")
        return super().units_notices(images) + ([] if notice is None else [notice])

    def compare(self, batch: Batch, share: Share | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the student's logits of a batch, and what ``term_values`` does; see ``SegmentationTask.compare``."""
        target, share = batch["target"].long(), share or Share()
        with self._tapped(batch["image"]) as taps:
            student = self.shared_logits(batch, share)
            teacher = self.teacher_logits(batch, share)
            if teacher is not None and teacher.shape[1] != student.shape[1]:
                raise ModelError(
                    f"the teacher gives {teacher.shape[1]} classes but the student {student.shape[1]}; "
                    "open it with open_teacher, which matches classes by name"
                )
            values = {}
            for label, (_, term) in self.labeled_terms.items():
                compared: tuple[Tensor, Tensor | None] = (student, teacher)
                if taps is not None and term.on_features:
                    features = taps.of(term)
                    compared = (share.gathered(features[0]), share.gathered(features[1]))
                values[label] = term(
                    compared[0],
                    compared[1],
                    target,
                    batch["inside"],
                    known=self._known,
                    num_classes=student.shape[1],
                    adapter=self._adapter(label),
                )
        return student, values

    def teacher_logits(self, batch: Batch, share: Share | None = None) -> Tensor | None:
        """Return the teacher's logits (N, C, H, W), decoded from a cache's codes or computed.

        None when no term asks for the teacher. Terms on features have it computed even so.

        Args:
            batch: Of all processes.
            share: The crops of it about which this process asks; None: all.
        """
        if not any(term.needs_teacher for _, term in self.terms):
            return None
        if isinstance(self.teacher, TeacherCache):
            return self.teacher.decode(batch[CACHED])
        share = share or Share()
        return share.gathered(self.teacher.logits(batch["image"][share.own]))

    def open_taps(self) -> None:
        """Tap student and teacher, where terms on features want it and they aren't tapped yet."""
        if self._on_features and self._taps is None:
            self._taps = TapPair(self.model, self._network, self._on_features.values())

    def close_taps(self) -> None:
        """Remove the taps from student and teacher."""
        if self._taps is not None:
            self._taps.close()
            self._taps = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the taps to the original: a copy taps its own student."""
        return {**super().__getstate__(), "_taps": None}

    @property
    def _network(self) -> nn.Module:
        """The teacher's network, which ``check_teacher`` saw is there where features are wanted."""
        return self.teacher.module if self.teacher.module is not None else nn.Identity()

    @contextmanager
    def _tapped(self, images: Tensor) -> Iterator[TapPair | None]:
        """Give the taps with nothing in them, and leave nothing in them; outside of a fit they are set for now."""
        if not self._on_features:
            yield None
            return
        check_aligned(images, self.model, self._network)
        fitting = self._taps is not None
        self.open_taps()
        try:
            yield self._taps
        finally:
            if not fitting:
                self.close_taps()
            elif self._taps is not None:
                self._taps.clear()

    def _build_adapters(self) -> nn.ModuleDict:
        adapters = nn.ModuleDict()
        if not self._on_features:
            return adapters
        terms = self._on_features
        student, teacher = feature_channels(self.model, self._network, terms.values(), bands=bands_of(self.model))
        for label, term in terms.items():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(self.seed, label))
                adapter = term.build_adapter(student[str(term.student)], teacher[str(term.teacher)])
            if adapter is not None:
                adapters[_key(label)] = adapter
        return adapters

    def _adapter(self, label: str) -> nn.Module | None:
        key = _key(label)
        return self.adapters[key] if key in self.adapters else None  # noqa: SIM401  # a ModuleDict has no get


def _key(label: str) -> str:
    """Return a name that a module may have."""
    return label.replace(".", "/")
