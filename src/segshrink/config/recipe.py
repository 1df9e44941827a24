"""The recipe: everything a run depends on, in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from segshrink.config.base import LARGEST_SEED, Options, Strict
from segshrink.config.dataset import DatasetDescription
from segshrink.config.teachers import Teaching
from segshrink.config.training import NamedOptions, Training
from segshrink.library import located
from segshrink.user_code import is_function

# Ids that a folder could have for a name, too; they stand for the networks.
OWN_NETWORKS = frozenset({"espnetv2", "mobile", "separable-unet", "unet"})


def is_folder(identity: str) -> bool:
    """Tell whether a model's id is written like a folder, or is one or the name of a ready one, but of no network."""
    path = Path(located(identity))
    written = path.is_absolute() or identity.startswith((".", "~")) or ("/" in identity and ":" not in identity)
    return written or (identity not in OWN_NETWORKS and path.is_dir())


class ModelChoice(Strict):
    """A network by id, with its options. A text alone is its ``id``."""

    id: str
    """A network id: "unet", "separable-unet", "mobile", "espnetv2", "smp:Unet/resnet34",
    "torchvision:lraspp_mobilenet_v3_large"; "module:function" of your own code; or a model or run folder, relative to
    the recipe, whose network, weights and normalization training starts from (one with the name of a network is written
    "./mobile")."""
    options: Options = Field(default={})
    """Network options by name (unet: width, depth; separable-unet: width; espnetv2: scale; ...), or arguments of the
    function."""
    encoder_weights: Literal["imagenet"] | Path | None = None
    """Where the encoder starts: "imagenet" takes an installed package that carries the weights, or a hub where one is
    reached; or a file of encoder weights (.safetensors or weights-only .pth), relative to the recipe; or "aerial", the
    encoder of the ready model. None starts at random."""
    normalization: Literal["data", "imagenet", "half"] = "data"
    """Pixel normalization: statistics of the training images, ImageNet's, or what the encoder weights were trained with
    ("half": (x - 128) / 128)."""
    sigmoid: bool = False
    """One output channel (a sigmoid) instead of two, for data of exactly two classes, the background first."""
    start: str | None = None
    """A run or model folder, or the published weights of ESPNetv2 (.pth), relative to the recipe, or "aerial", a ready
    ``mobile`` trained on land cover from the air (three bands of 8 bits), whose network and weights training goes on
    from though the list of classes has changed since: classes go by name. It stands for
    ``id``, and may be written beside ``student``."""
    start_classes: dict[str, str | list[str]] = Field(default={})
    """Class -> class or classes of ``start`` that it comes from, where it is split or merged: {conifer: forest,
    broadleaf: forest, vehicle: [car, truck]}. The ``labels`` of a class count as well."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"id": value}
        if isinstance(value, dict) and isinstance(value.get("start"), str):
            return {"id": value["start"], **value}
        return value

    @model_validator(mode="after")
    def _one_network(self) -> ModelChoice:
        if self.start is not None and self.id != self.start:
            raise ValueError(f"start brings its own network; leave id: {self.id} out")
        if self.start_classes and self.start is None:
            raise ValueError("start_classes says what becomes of the classes of 'start'; give that, too")
        return self


class Crops(Strict):
    """How training samples are drawn."""

    size: int = Field(default=256, ge=32, le=16384)
    """Side of a square crop in pixels."""
    batch_size: int = Field(default=8, ge=1, le=65536)
    """Crops an optimization step sees."""
    per_epoch: int | None = Field(default=None, ge=1, le=10**9)
    """Crops of an epoch; None: as many as cover the area of the training images once."""
    draw: Literal["area", "image"] = "area"
    """How scenes are drawn: in proportion to their "area", or every "image" equally often, so that a few large scenes
    don't outweigh many small ones."""
    rare_class_share: float = Field(default=0.0, ge=0, le=1)
    """Share of crops centered on a pixel of a rare class (classes drawn with equal chance)."""
    unlabeled_share: float = Field(default=0.5, ge=0, le=1)
    """Share of crops that come from unlabeled images when there are any (distillation only)."""
    workers: int | None = Field(default=None, ge=0, le=256)
    """Data loading processes; None picks 0 for in-memory speed on small machines."""


class Augmentation(Strict):
    """Random changes of a crop; each is drawn from (seed, epoch, sample). A name alone is its ``preset``."""

    preset: Literal["photo", "aerial"] | None = None
    """What a change may do: "aerial" (seen from above, every direction is alike) mirrors and turns by quarters; "photo"
    (up is up) exchanges left and right only. None follows the data: "aerial" where images say where on the ground they
    lie."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the zoom factor, drawn log-uniformly; 1 is the original resolution. Between 1/32 and 32."""
    flips: bool | Literal["left-right"] | None = None
    """Mirror left-right and top-bottom, each with chance 1/2; or "left-right" only; None as the preset says."""
    quarter_turns: bool | None = None
    """Turn by a multiple of 90 degrees; None as the preset says."""
    brightness: float = Field(default=0.2, ge=0, le=1)
    """Largest relative change of brightness (the same factor for all bands)."""
    contrast: float = Field(default=0.2, ge=0, le=1)
    """Largest relative change of contrast around the crop's mean."""
    band_gain: float = Field(default=0.1, ge=0, le=1)
    """Largest relative change of each band by a factor of its own (color cast, sensor, haze)."""
    noise: float = Field(default=0.02, ge=0, le=1)
    """Largest standard deviation of Gaussian noise, as a share of the value range."""
    cutmix: float = Field(default=0.0, ge=0, le=1)
    """CutMix: chance that a rectangle of a crop is replaced by that of another crop of the batch, with its labels and,
    where a teacher's answers are cached, those too."""
    mixup: float = Field(default=0.0, ge=0, le=1)
    """MixUp: chance that a crop is blended with another one of the batch, for a teacher that is asked about the blend;
    labels don't count there."""

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


class Term(Strict):
    """One weighted loss."""

    name: str
    """A function of segshrink.losses: "cross_entropy", "jaccard", "pixel_kl", "channel_kl", "hint", ..."""
    weight: float = Field(default=1.0, ge=0)
    """Factor of the loss."""
    options: Options = Field(default={})
    """Options of the loss by name (temperature, label_smoothing, class_weights, ...)."""
    student: str | None = None
    """For a loss on features: which of the student's, by module path ("encoder.layer4") or by role ("encoder",
    "decoder", "stage:3"); a loss on logits takes the logits when this and ``teacher`` are left out."""
    teacher: str | None = None
    """For a loss on features: which of the teacher's, in the same way."""


class Distillation(Teaching):
    """What the student learns from: its teachers, and alpha and temperature, a preset, or a list of weighted terms."""

    alpha: float = Field(default=0.5, ge=0, le=1)
    """Share of the true-label loss, as in Keras's distillation tutorial; 1 - alpha is the share of the distillation
    loss. Others mean the opposite by the same letter: see ``soft_weight``."""
    soft_weight: float | None = Field(default=None, ge=0, le=1)
    """Share of the distillation loss, which DeiT and RepDistiller call alpha; sets alpha to 1 - soft_weight."""
    temperature: float = Field(default=2.0, gt=0)
    """Temperature of the soft targets."""
    inherit_encoder: bool = False
    """Start the student's encoder from the teacher's, where it is the same one or a part of it."""
    teacher_cache: bool | Path = False
    """Compute the teacher's answers once, over whole scenes, and cut crops from them: the teacher costs neither time
    nor memory while the student trains, and sees whole scenes, but not the student's brightness, contrast and noise. A
    folder says where answers are kept (one byte a pixel and class, and one a pixel); true: beside the decoded images.
    """
    confidence_weighting: bool = False
    """Weight every pixel's soft target by how sure the teacher is there."""
    preset: str | None = None
    """A published combination of terms ("cwd", "cirkd", "jml", "dist", "mgd", ...); replaces alpha and temperature."""
    terms: list[Term] | None = None
    """Replaces alpha and temperature when given; not together with a preset."""

    @model_validator(mode="before")
    @classmethod
    def _one_share(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(soft := values.get("soft_weight"), int | float):
            return values
        if "alpha" in values:
            raise ValueError(
                f"'alpha' ({values['alpha']}, share of the labels, as in Keras's tutorial) and 'soft_weight' ({soft}, "
                "share of the teacher, the alpha of DeiT and RepDistiller) say one thing; give one of them"
            )
        return {**values, "alpha": 1 - soft, "soft_weight": None} if 0 <= soft <= 1 else values

    @field_validator("teacher_cache", mode="before")
    @classmethod
    def _switch_or_folder(cls, value: object) -> object:
        quoted = isinstance(value, str | Path) and Path(value).name.lower() in ("true", "false", "yes", "no")
        if quoted or not isinstance(value, bool | str | Path):
            remedy = "; leave the quotes out" if quoted else ""
            raise ValueError(f"give true, false or a folder, found {value!r}{remedy}")
        return value


class Consistency(Strict):
    """Learning from unlabeled images without a teacher.

    What the network's own moving average is sure of on a crop, it must say of the crop in other colors and mixed with
    others, too.
    """

    weight: float = Field(default=1.0, gt=0)
    """Factor of the loss."""
    threshold: float = Field(default=0.95, gt=0, lt=1)
    """Pixels count where the average gives one class at least this probability."""
    ema_decay: float = Field(default=0.99, gt=0, lt=1)
    """Decay of the average per step; at first it follows more quickly."""
    color: float = Field(default=0.5, ge=0, le=1)
    """Largest relative change of brightness and contrast in the other colors; bands change by half of it."""


class Learner(Strict):
    """A network, its training settings and its losses on labels. A text alone is the network's id."""

    model: ModelChoice
    """The network."""
    training: Training = Training()
    """How it is optimized."""
    terms: list[Term] = Field(default=[Term(name="cross_entropy")])
    """Losses on the true labels."""
    consistency: Consistency | None = None
    """Also learn from the data set's unlabeled images by consistency, with or without a teacher."""


class TeacherLearner(Learner):
    """A teacher, or a bank: several that are trained alike and answer as one, by the mean of their probabilities."""

    folds: int | None = Field(default=None, ge=2)
    """Trains a bank. The groups of training images (``data.split.groups``) are divided into so many folds; the first
    teacher learns without the first fold, the second without the second, and so on; further members leave out nothing.
    """
    members: list[ModelChoice] = Field(default=[])
    """Networks of the bank's teachers, in order, with seeds that count up from the recipe's; by default ``model`` as
    many times as there are folds. ``model`` may be left out beside them."""

    @model_validator(mode="before")
    @classmethod
    def _first_member_stands_for_all(cls, value: Any) -> Any:
        members = value.get("members") if isinstance(value, dict) and "model" not in value else None
        return {**value, "model": members[0]} if isinstance(members, list) and members else value

    @model_validator(mode="after")
    def _enough_members(self) -> TeacherLearner:
        if len(self.members) == 1 or (self.members and len(self.members) < (self.folds or 0)):
            least = max(2, self.folds or 0)
            raise ValueError(f"members lists {len(self.members)}, but this bank has {least} teachers or more; add some")
        return self

    @property
    def is_bank(self) -> bool:
        """Whether it is several teachers."""
        return bool(self.members or self.folds)

    @property
    def models(self) -> list[ModelChoice]:
        """The network of each teacher."""
        return list(self.members) or [self.model] * (self.folds or 1)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class Tracker(NamedOptions):
    """An experiment tracker. A text alone is its ``name``."""

    name: Literal["tensorboard", "mlflow", "wandb"]
    """Which."""


class Recipe(Strict):
    """Everything a run depends on. ``segshrink train`` trains ``teacher``; ``segshrink distill`` trains ``student``."""

    name: str = "run"
    """Name of the runs in reports."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Random seed of weights, crops and augmentation."""
    data: DatasetDescription
    """The data set: its description, or the path of the description's file, relative to the recipe; {file: PATH, ...}
    gives keys of that file other values."""
    crops: Crops = Crops()
    """How training samples are drawn."""
    augmentation: Augmentation = Augmentation()
    """Random changes of a crop; a name alone, "aerial" or "photo", is its preset."""
    teacher: TeacherLearner | None = None
    """The teacher, or bank of teachers, where it is to be trained."""
    student: Learner | None = None
    """The small network, and how it and its control are trained."""
    distillation: Distillation = Distillation()
    """What the student learns from."""
    trackers: list[Tracker] = Field(default=[])
    """Experiment trackers that follow each training beside ``metrics.csv``, with pictures of validation scenes:
    "tensorboard" (writes into the run folder), "mlflow" (too, or to $MLFLOW_TRACKING_URI), "wandb" ($WANDB_MODE=offline
    stays here); with options of Lightning's logger: {name: wandb, options: {project: mine}}."""

    @property
    def functions(self) -> list[str]:
        """The functions of the user's own code, "module:function", that make its networks."""
        learned = [*(self.teacher.models if self.teacher else ()), *([self.student.model] if self.student else ())]
        return [model.id for model in learned if is_function(model.id)]

    @model_validator(mode="before")
    @classmethod
    def _started(cls, value: Any) -> Any:
        """Let ``start`` beside ``student`` be that of its network; in a recipe without a student of its teacher's."""
        if not isinstance(value, dict) or "start" not in value:
            return value
        role = "student" if value.get("student") is not None or value.get("teacher") is None else "teacher"
        learner = value.get(role) or {}
        learner = {"model": learner} if isinstance(learner, str) else learner
        model = learner.get("model") or {}
        model = {"id": model} if isinstance(model, str) else model
        rest = {key: given for key, given in value.items() if key != "start"}
        return {**rest, role: {**learner, "model": {**model, "start": value["start"]}}}

    @model_validator(mode="after")
    def _two_classes_for_a_sigmoid(self) -> Recipe:
        names = [entry.name for entry in self.data.classes]
        models = [("teacher", model) for model in (self.teacher.models if self.teacher else [])]
        models += [("student", self.student.model)] if self.student else []
        for role, model in models:
            if model.sigmoid and len(names) != 2:
                raise ValueError(
                    f"'{role}.model.sigmoid' is for data of exactly two classes, the background first, found "
                    f"{len(names)} ({', '.join(names)}); leave it out"
                )
        return self
