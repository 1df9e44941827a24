"""The recipe: everything a run depends on, in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from segshrink.config.base import LARGEST_SEED, Options, Strict
from segshrink.config.dataset import DatasetDescription
from segshrink.config.teachers import Teaching


class ModelChoice(Strict):
    """A network by id, with its options."""

    # "unet", "separable-unet", "mobile", "smp:Unet/resnet34", "torchvision:lraspp_mobilenet_v3_large"; or a model or
    # run folder, relative to the recipe, whose network, weights and normalisation training starts from.
    id: str
    # Network options by name (unet: width, depth; separable-unet: width; ...).
    options: Options = Field(default={})
    # "imagenet": from an installed package that carries them, or a hub where one is reached; or a file of encoder
    # weights (.safetensors or weights-only .pth), relative to the recipe. None starts at random.
    encoder_weights: Literal["imagenet"] | Path | None = None
    # Pixel normalisation: statistics of the training images, ImageNet's, or what the encoder weights were trained with
    # ("half": (x - 128) / 128).
    normalization: Literal["data", "imagenet", "half"] = "data"
    # One output channel (a sigmoid) instead of two, for data of exactly two classes, the background first.
    sigmoid: bool = False


class Crops(Strict):
    """How training samples are drawn."""

    # Side of a square crop in pixels.
    size: int = Field(default=256, ge=32, le=16384)
    # Crops an optimisation step sees.
    batch_size: int = Field(default=8, ge=1, le=65536)
    # Crops of an epoch; None: as many as cover the area of the training images once.
    per_epoch: int | None = Field(default=None, ge=1, le=10**9)
    # How scenes are drawn: in proportion to their "area", or every "image" equally often, so that a few large scenes
    # don't outweigh many small ones.
    draw: Literal["area", "image"] = "area"
    # Share of crops centred on a pixel of a rare class (classes drawn with equal chance).
    rare_class_share: float = Field(default=0.0, ge=0, le=1)
    # Share of crops that come from unlabelled images when there are any (distillation only).
    unlabeled_share: float = Field(default=0.5, ge=0, le=1)
    # Data loading processes; None picks 0 for in-memory speed on small machines.
    workers: int | None = Field(default=None, ge=0, le=256)


class Augmentation(Strict):
    """Random changes of a crop; each is drawn from (seed, epoch, sample). A name alone is its ``preset``."""

    # "aerial": seen from above, every direction is alike: mirrors and quarter turns. "photo": up is up: left and right
    # are exchanged, nothing else. None follows the data: "aerial" where images say where on the ground they lie.
    preset: Literal["photo", "aerial"] | None = None
    # Range of the zoom factor, drawn log-uniformly; 1 is the original resolution. Between 1/32 and 32.
    scale: tuple[float, float] = (0.5, 2.0)
    # Mirror left-right and top-bottom, each with chance 1/2; or "left-right" only; None as the preset says.
    flips: bool | Literal["left-right"] | None = None
    # Turn by a multiple of 90 degrees; None as the preset says.
    quarter_turns: bool | None = None
    # Largest relative change of brightness (the same factor for all bands).
    brightness: float = Field(default=0.2, ge=0, le=1)
    # Largest relative change of contrast around the crop's mean.
    contrast: float = Field(default=0.2, ge=0, le=1)
    # Largest relative change of each band by a factor of its own (colour cast, sensor, haze).
    band_gain: float = Field(default=0.1, ge=0, le=1)
    # Largest standard deviation of Gaussian noise, as a share of the value range.
    noise: float = Field(default=0.02, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"preset": value} if isinstance(value, str) else value

    def resolved(self, *, georeferenced: bool) -> Augmentation:
        """Return it with nothing left to the data."""
        preset = self.preset or ("aerial" if georeferenced else "photo")
        aerial = preset == "aerial"
        flips = (True if aerial else "left-right") if self.flips is None else self.flips
        turns = aerial if self.quarter_turns is None else self.quarter_turns
        return self.model_copy(update={"preset": preset, "flips": flips, "quarter_turns": turns})

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        low, high = self.scale
        if not 1 / 32 <= low <= high <= 32:
            raise ValueError(
                f"scale must be two positive numbers, the smaller first, from 1/32 to 32, found {low}, {high}"
            )
        return self


class Training(Strict):
    """How long and how a network is optimised."""

    epochs: int = Field(default=50, ge=1, le=10**6)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    # Share of all steps in which the learning rate rises linearly; then it falls along a half cosine to zero.
    warmup: float = Field(default=0.05, ge=0, lt=1)
    # Largest norm of the gradient; None doesn't clip.
    clip_norm: float | None = Field(default=1.0, gt=0)
    # Decay of the exponential moving average of the weights per step (0.999, say); None keeps the plain weights.
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    # Stop after this many validations without a better mIoU; None trains to the end.
    patience: int | None = Field(default=None, ge=1)
    # Measure the mIoU on whole validation scenes every so many epochs, and after the last; losses are measured on fixed
    # crops of them after every epoch.
    validate_every: int = Field(default=1, ge=1)
    # "auto": bf16 where the device computes in it, else 32-bit. bf16 elsewhere and fp16 on a CPU are refused.
    precision: Literal["auto", "32", "bf16", "fp16"] = "auto"
    # torch.compile the network.
    compile: bool = False
    # CPU threads; None takes the cores that are free.
    threads: int | None = Field(default=None, ge=1, le=1024)


class Term(Strict):
    """One weighted loss."""

    # A function of segshrink.losses: "cross_entropy", "jaccard", "pixel_kl", "channel_kl", "hint", ...
    name: str
    weight: float = Field(default=1.0, ge=0)
    # Options of the loss by name (temperature, label_smoothing, class_weights, ...).
    options: Options = Field(default={})
    # For a loss on features: which of the student's and of the teacher's, by module path ("encoder.layer4") or by
    # role ("encoder", "decoder", "stage:3"); a loss on logits takes the logits when both are left out.
    student: str | None = None
    teacher: str | None = None


class Distillation(Teaching):
    """What the student learns from: its teachers, and alpha and temperature, a preset, or a list of weighted terms."""

    # Share of the true-label loss; 1 - alpha is the share of the distillation loss.
    alpha: float = Field(default=0.5, ge=0, le=1)
    # Temperature of the soft targets.
    temperature: float = Field(default=2.0, gt=0)
    # Start the student's encoder from the teacher's, where it is the same one or a part of it.
    inherit_encoder: bool = False
    # Compute the teacher's answers once, over whole scenes, and cut crops from them: the teacher costs neither time nor
    # memory while the student trains, and sees whole scenes, but not the student's brightness, contrast and noise. A
    # folder says where answers are kept (one byte a pixel and class, and one a pixel); true: beside the decoded images.
    teacher_cache: bool | Path = False
    # Weight every pixel's soft target by how sure the teacher is there.
    confidence_weighting: bool = False
    # A published combination of terms ("cwd", "cirkd", "jml", "dist", "mgd", ...); replaces alpha and temperature.
    preset: str | None = None
    # Replaces alpha and temperature when given; not together with a preset.
    terms: list[Term] | None = None

    @field_validator("teacher_cache", mode="before")
    @classmethod
    def _switch_or_folder(cls, value: object) -> object:
        quoted = isinstance(value, str | Path) and Path(value).name.lower() in ("true", "false", "yes", "no")
        if quoted or not isinstance(value, bool | str | Path):
            remedy = "; leave the quotes out" if quoted else ""
            raise ValueError(f"give true, false or a folder, found {value!r}{remedy}")
        return value


class Learner(Strict):
    """A network and, where they differ from the recipe's, its own training settings and supervised terms."""

    model: ModelChoice
    training: Training = Training()
    terms: list[Term] = Field(default=[Term(name="cross_entropy")])


class Recipe(Strict):
    """Everything a run depends on. ``segshrink train`` trains ``teacher``; ``segshrink distill`` trains ``student``."""

    name: str = "run"
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    data: DatasetDescription
    crops: Crops = Crops()
    augmentation: Augmentation = Augmentation()
    teacher: Learner | None = None
    student: Learner | None = None
    distillation: Distillation = Distillation()

    @model_validator(mode="after")
    def _two_classes_for_a_sigmoid(self) -> Recipe:
        names = [entry.name for entry in self.data.classes]
        for role, learner in (("teacher", self.teacher), ("student", self.student)):
            if learner is not None and learner.model.sigmoid and len(names) != 2:
                raise ValueError(
                    f"'{role}.model.sigmoid' is for data of exactly two classes, the background first, found "
                    f"{len(names)} ({', '.join(names)}); leave it out"
                )
        return self
