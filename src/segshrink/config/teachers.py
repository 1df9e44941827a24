"""Teachers that a recipe names: where each is, how a foreign one wants its pixels, and how several are combined."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from segshrink.config.base import Options, Strict
from segshrink.errors import ConfigError, FileError
from segshrink.model_description import Normalization


class Adapter(Strict):
    """How a foreign model takes pixels and what it answers."""

    layout: Literal["NCHW", "NHWC"] | None = None
    """Order of the axes of its images, and of its answers unless their shape says otherwise; by default what the shape
    of its input says."""
    size: int | tuple[int, int] | None = None
    """Height and width it takes when it takes no others; one number is both."""
    fit: Literal["letterbox", "stretch", "tile"] = "tile"
    """How an image becomes one of that size: the whole image with its proportions kept ("letterbox") or not
    ("stretch"), or tiles of it."""
    place: Literal["center", "corner"] = "center"
    """Where a letterboxed image lies: in the middle, or in the upper left corner."""
    fill: float = 0.0
    """Raw value around a letterboxed image."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Order of the first three bands."""
    mean: float | list[float] = 0.0
    """It takes (pixel - mean) / std; one number for all bands, or one each in the order it takes them, in the units of
    the images' pixels: ImageNet's 0.485 and 0.229 are 123.675 and 58.395 for 8-bit ones. A network of integers takes
    that by the scale and zero point in its file; at 0 and 1 it takes the pixel values themselves."""
    std: float | list[float] = 1.0
    """See ``mean``."""
    dtype: Literal["float32", "float16", "uint8", "int8"] | None = None
    """Type of the numbers it takes; by default what its file says."""
    output: Literal["auto", "logits", "probabilities", "labels"] = "auto"
    """What comes out: "labels" is one class index per pixel; "auto" tells logits from probabilities by looking."""
    confidence: float = Field(default=0.9, gt=0, lt=1)
    """Probability of the class that a label map names; the others share the rest."""
    output_name: str | int = 0
    """Which of several outputs, by name or position."""
    classes: list[str] | Path | None = None
    """Its class names in order, or a text file with one a line."""
    module: str | None = None
    """Keras files: the Python module of layers and functions that aren't Keras's own; it is imported only where the
    file is trusted."""

    def class_names(self) -> tuple[str, ...] | None:
        """Return the model's class names in order; None where nothing is said about them.

        A text file holds one name a line; spaces around it and empty lines at the end don't count.

        Raises:
            FileError: The text file is missing, unreadable or no text.
            ConfigError: There is no name, an empty one, or one that comes twice (upper and lower case are alike).
        """
        if self.classes is None:
            return None
        where = "the adapter's 'classes'" if isinstance(self.classes, list) else str(self.classes)
        lines = self.classes if isinstance(self.classes, list) else _lines(self.classes)
        names = [line.strip() for line in lines]
        if not names:
            raise ConfigError(f"{where} names no class; give one name for each, in order")
        if "" in names:
            raise ConfigError(f"{where} has no name for class {names.index('')} (counted from 0); give one for each")
        (first, count), *_ = Counter(name.casefold() for name in names).most_common(1)
        if count > 1:
            raise ConfigError(f"{where} names the class '{first}' {count} times; each name must be given once")
        return tuple(names)

    def normalization(self, bands: int) -> Normalization:
        """Return the scaling that is written down, one number for each band or for all.

        Raises:
            ConfigError: There are more or fewer numbers than bands, or impossible ones.
        """
        values = {"mean": self.mean, "std": self.std}
        listed = {name: value if isinstance(value, list) else [value] * bands for name, value in values.items()}
        for name, numbers in listed.items():
            if len(numbers) != bands:
                raise ConfigError(
                    f"the adapter's '{name}' has {len(numbers)} values, but the images have {bands} bands"
                )
            if not all(math.isfinite(number) for number in numbers):
                raise ConfigError(f"the adapter's '{name}' must be finite numbers, found {numbers}")
        if min(listed["std"]) <= 0:
            raise ConfigError(f"the adapter's 'std' must be above 0, found {min(listed['std']):g}")
        return Normalization(tuple(listed["mean"]), tuple(listed["std"]))


class TeacherSource(Strict):
    """One teacher. A text alone is its ``source``."""

    source: str
    """Run or model folder; "smp:...", "torchvision:NAME@WEIGHTS", "espnetv2", "hf:FOLDER or hub name",
    "module:function"; "onnx:FILE", "tflite:FILE", "keras:FILE"; "labels:FOLDER" of soft (.npy) or hard (.png) label
    maps."""
    adapter: Adapter | Path | None = None
    """How it takes pixels and what it answers, written here or in a file of its own; of "keras:unet.keras" by default
    in unet.keras.yaml beside it, where there is such a file."""
    weights: Path | None = None
    """Weights for a network that the source names (.safetensors or weights-only .pth), or the name of published ones of
    torchvision ("COCO_WITH_VOC_LABELS_V1")."""
    options: Options = Field(default={})
    """Options of the network by name (smp: decoder_channels, ...), or arguments of the function."""
    classes: dict[str, str | list[str]] = Field(default={})
    """Class of the student -> class or classes of the teacher, where names differ. Classes with equal names need none.
    """
    trust: bool = False
    """Let code run that the teacher names: the function that makes a folder's network; a Keras file's Lambda layers,
    and the ``module`` of its adapter."""
    weight: float = Field(default=1.0, gt=0)
    """Its share among several teachers."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        value = {"source": value} if isinstance(value, str) else value
        source = value.get("source") if isinstance(value, dict) else None
        if isinstance(source, str) and source.startswith("torchvision:") and "@" in source and "weights" not in value:
            name, _, weights = source.partition("@")
            return {**value, "source": name, "weights": weights}
        return value


class Teaching(Strict):
    """All teachers of a student, and how their answers become one."""

    teachers: list[TeacherSource] = Field(default=[])
    """The teachers; none: the recipe's own is trained first."""
    combine: Literal["weights", "confidence"] = "weights"
    """Several teachers: average their probabilities with their weights, or with their weights times each one's
    confidence (largest probability) at the pixel."""
    flips: bool | Literal["left-right"] = False
    """Average the answers for the image and for its mirror images: in both directions, or "left-right" only, for photos
    in which up is up."""
    scales: list[Annotated[float, Field(gt=0)]] = Field(default=[1.0], min_length=1)
    """Average the answers for the image at these zooms."""
    out_of_fold: bool = False
    """Of a bank, let only those teachers answer about a training image that learned from none of its ground; where
    there is none, all do. Needs a cache."""
    precision: Literal["auto", "bf16", "int8"] = "auto"
    """The precision that they compute in on a CPU: "bf16" or "int8" through OpenVINO, where it can run them so and the
    answers stay nearly the same. "auto" leaves them to their own runtime, which is bf16 for networks of PyTorch where
    the processor computes in it. Losses on features need "auto"."""


def _lines(path: Path) -> list[str]:
    try:
        # Text files from Windows may begin with a byte order mark.
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not a text file of class names ({error.reason}); give one name a line") from error
    except OSError as error:
        raise FileError(
            f"can't read the class names in {path}: {error.strerror or error}; the path is relative to the adapter file"
        ) from error
