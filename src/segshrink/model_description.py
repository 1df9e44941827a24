"""Everything about a model but its weights: what ``config.json`` and exported files carry. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segshrink.classes import ClassMap
from segshrink.errors import ConfigError, ModelError, nearest
from segshrink.formatting import printable, shortened
from segshrink.image_distribution import ImageDistribution
from segshrink.user_code import is_function
from segshrink.working_size import Resize, checked

# Begins the id of a network that only its owner's code can build.
CUSTOM = "custom:"
LARGEST_STRIDE = 4096
_MOST_BANDS = 4096
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
# Meters a pixel: from less than a microscope's to a world map's.
_FINEST, _COARSEST = 1e-7, 1e6
_LONGEST_NAME = 200  # letters of an id or of a band's name
# Whole numbers in options count channels, blocks or pixels; some libraries loop over them.
_LARGEST_COUNT, _LARGEST_OPTION = 1 << 18, 1e9
_DEPTH = 32  # levels of options and structures
# For 8-bit RGB. ImageNet's statistics as torchvision gives them, times 255; "half" is TensorFlow's (x - 128) / 128.
_NAMED_NORMALIZATIONS = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "half": ((128.0, 128.0, 128.0), (128.0, 128.0, 128.0)),
}
# Well within float32, in which a model computes.
_LARGEST_VALUE = 1e30
# No deviation of pixels from 0 to 1 is this small; one that multiplies them by so much is meant.
_SMALL_UNIT_STD = 0.02


@dataclass(frozen=True)
class Normalization:
    """``x -> (x - mean) / std``, band by band, in raw pixel units.

    Attributes:
        mean: One value a band.
        std: One value a band, above 0.

    Example:
        >>> Normalization.named("half", bands=3).mean
        (128.0, 128.0, 128.0)

    Raises:
        ModelError: The lengths differ, or a value can't be divided by.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if not self.mean or len(self.mean) != len(self.std):
            raise ModelError(
                f"normalization needs a mean and a std for each band, found {len(self.mean)} and {len(self.std)}"
            )
        if (
            not all(abs(value) <= _LARGEST_VALUE for value in (*self.mean, *self.std))
            or min(self.std) < 1 / _LARGEST_VALUE
        ):
            raise ModelError(
                f"normalization needs means up to {_LARGEST_VALUE:g} and stds from {1 / _LARGEST_VALUE:g} to that, "
                f"found {self.mean} and {self.std}"
            )

    @property
    def bands(self) -> int:
        """How many bands it is for."""
        return len(self.mean)

    @property
    def for_unit_pixels(self) -> bool:
        """Whether its numbers are those of pixels from 0 to 1, such as 0.485 and 0.229; 0 and 1 are anybody's."""
        changes = any(self.mean) or any(value != 1 for value in self.std)
        return changes and max(*map(abs, self.mean), *self.std) <= 1 and min(self.std) > _SMALL_UNIT_STD

    @classmethod
    def named(cls, name: str, bands: int = 3) -> Normalization:
        """Return a well-known normalization of 8-bit pixels.

        With another number of bands than three, the first bands are taken as red, green, blue, and every further band
        gets the average of these three.

        Args:
            name: "imagenet" (torchvision's statistics) or "half" (``(x - 128) / 128``).
            bands: Bands of the image.

        Raises:
            ModelError: The name is unknown.
        """
        if name not in _NAMED_NORMALIZATIONS:
            raise ModelError(f"unknown normalization '{name}'{nearest(name, _NAMED_NORMALIZATIONS)}")
        mean, std = _NAMED_NORMALIZATIONS[name]
        return cls(_stretched(mean, bands), _stretched(std, bands))

    def to_dict(self) -> dict[str, list[float]]:
        """Return a JSON-able mapping that ``from_dict`` reads back exactly."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Normalization:
        """Read back what ``to_dict`` gave; raises what a missing key or a wrong kind of value raises."""
        return cls(tuple(mapping["mean"]), tuple(mapping["std"]))


@dataclass(frozen=True)
class ModelDescription:
    """A model in words and numbers.

    Attributes:
        id: The network's id ("mobile", "smp:Unet/resnet34", ...); of somebody's own code "module:function", or
            "custom:<class>" where nothing says which function makes it.
        options: Options of the network by name, JSON-able; without those that only fetch weights.
        classes: What the C logits mean, in order.
        bands: Bands of an image.
        normalization: How raw pixel values are scaled inside the model.
        stride: The network takes heights and widths that are multiples of this many pixels.
        band_names: What the bands are, in order, when known.
        dtype: Kind of the raw pixel values it was trained on ("uint8", "uint16", "int16", "float32").
        sigmoid: Whether the network has one output channel z for two classes, the background first; the model's logits
            are then (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)).
        scaling: (scale, offset) of each band's raw numbers, as the tags of the files it was trained on say; None where
            they say nothing.
        resolution: Ground size of a pixel in meters that it was trained on, when known.
        resize: The size at which the network works on an image, as ``working_size`` says it; logits come at the image's
            own size. None: the image's.
        structure: How the network differs from the one that ``id`` and ``options`` build, as ``models.structure`` says
            it; None where it doesn't.
        images: What the images look like that it was trained on; None where nobody measured.
    """

    id: str
    classes: ClassMap
    bands: int
    normalization: Normalization
    stride: int
    options: dict[str, Any] = field(default_factory=dict)
    band_names: tuple[str, ...] | None = None
    dtype: str = "uint8"
    sigmoid: bool = False
    resolution: float | None = None
    scaling: tuple[tuple[float, float], ...] | None = None
    structure: Mapping[str, Any] | None = None
    resize: Resize | None = None
    images: ImageDistribution | None = None

    def __post_init__(self) -> None:
        if self.resize is not None:
            object.__setattr__(self, "resize", checked(self.resize))
        for name in (self.id, *(self.band_names or ())):
            if not 0 < len(name) <= _LONGEST_NAME or printable(name) != name:
                shown = printable(shortened(name, 60))
                raise ModelError(
                    f"ids and band names have 1 to {_LONGEST_NAME} letters that can be shown, found '{shown}'"
                )
        if not 1 <= self.bands <= _MOST_BANDS:
            raise ModelError(f"a model takes 1 to {_MOST_BANDS:,} bands, found bands={self.bands}")
        if not 1 <= self.stride <= LARGEST_STRIDE:
            raise ModelError(f"a stride lies between 1 and {LARGEST_STRIDE:,} pixels, found {self.stride}")
        if self.dtype not in _DTYPES:
            shown = printable(shortened(self.dtype, 60))
            raise ModelError(f"dtype must be one of {', '.join(_DTYPES)}, found '{shown}'")
        if self.normalization.bands != self.bands:
            raise ModelError(
                f"the model takes {self.bands} bands but its normalization has {self.normalization.bands}; give as many"
            )
        if self.band_names is not None and len(self.band_names) != self.bands:
            raise ModelError(f"the model takes {self.bands} bands but {len(self.band_names)} band names are given")
        if self.scaling is not None and len(self.scaling) != self.bands:
            raise ModelError(f"the model takes {self.bands} bands but {len(self.scaling)} scales and offsets are given")
        if any(not (math.isfinite(scale + offset) and scale) for scale, offset in self.scaling or ()):
            raise ModelError(f"scales and offsets are finite numbers, scales not 0, found {self.scaling}")
        if self.resolution is not None and not _FINEST <= self.resolution <= _COARSEST:
            raise ModelError(
                f"a resolution is meters per pixel, from {_FINEST:g} to {_COARSEST:g}, found {self.resolution}"
            )
        for part in (self.options, self.structure or {}):
            _refuse_odd(part)
        if self.sigmoid and len(self.classes) != 2:
            raise ModelError(
                "a one-channel (sigmoid) model tells exactly two classes apart, the background first, found "
                f"{len(self.classes)}: {', '.join(self.classes.names)}; leave 'sigmoid' out"
            )

    @property
    def is_custom(self) -> bool:
        """Whether only its owner's code can build the network."""
        return self.id.startswith(CUSTOM) or is_function(self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able mapping that ``from_dict`` reads back."""
        return {
            "id": self.id,
            "options": dict(self.options),
            "classes": self.classes.to_dict(),
            "bands": self.bands,
            "band_names": None if self.band_names is None else list(self.band_names),
            "dtype": self.dtype,
            "normalization": self.normalization.to_dict(),
            "stride": self.stride,
            "sigmoid": self.sigmoid,
            "resolution": self.resolution,
            "scaling": None if self.scaling is None else [list(tags) for tags in self.scaling],
            "structure": self.structure,
            # Absent from older files, and from the identities of teachers that have none.
            **({} if self.resize is None else {"resize": self.resize}),
            **({} if self.images is None else {"images": self.images.to_dict()}),
        }

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> ModelDescription:
        """Read back what ``to_dict`` gave.

        Raises:
            ModelError: A part is missing or of the wrong kind.
        """
        try:
            names = mapping.get("band_names")
            resolution = mapping.get("resolution")  # absent from older files, as are the next
            scaling = mapping.get("scaling")
            structure = mapping.get("structure")
            images = mapping.get("images")
            sigmoid = mapping.get("sigmoid", False)
            if not isinstance(sigmoid, bool):
                raise TypeError(f"sigmoid must be true or false, found {sigmoid!r}")
            for name in ("options", "structure"):
                if not isinstance(mapping.get(name) or {}, Mapping):
                    raise TypeError(f"{name} must be an object, found {type(mapping[name]).__name__}")
            return cls(
                id=str(mapping["id"]),
                options=dict(mapping.get("options") or {}),
                classes=ClassMap.from_dict(mapping["classes"]),
                bands=_whole(mapping, "bands"),
                normalization=Normalization.from_dict(mapping["normalization"]),
                stride=_whole(mapping, "stride"),
                band_names=None if names is None else tuple(str(name) for name in names),
                dtype=str(mapping.get("dtype", "uint8")),
                sigmoid=sigmoid,
                resolution=None if resolution is None else float(resolution),
                scaling=None if scaling is None else tuple((float(scale), float(offset)) for scale, offset in scaling),
                structure=None if structure is None else dict(structure),
                resize=mapping.get("resize"),
                images=None if images is None else ImageDistribution.from_dict(images),
            )
        except (ModelError, ConfigError) as error:
            raise ModelError(f"the model description is damaged: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"{type(error).__name__}: {printable(str(error))}"[:200]  # a file may have filled it
            raise ModelError(f"the model description is damaged ({reason}); save the model again") from error


def _whole(mapping: Mapping[str, Any], name: str) -> int:
    value = mapping[name]
    if type(value) is not int:
        raise TypeError(f"{name} must be a whole number, found {type(value).__name__}")
    return value


def _refuse_odd(value: Any, depth: int = 0) -> None:
    """Raise ModelError for what is nested deeper than any options are, and for numbers without end or sense."""
    if depth > _DEPTH:
        raise ModelError(f"options and structures are nested at most {_DEPTH} levels deep")
    limit = _LARGEST_COUNT if isinstance(value, int) else _LARGEST_OPTION
    if isinstance(value, int | float) and not abs(value) <= limit:
        raise ModelError(f"numbers in options and structures are at most {limit:g}, found {value}")
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        _refuse_odd(part, depth + 1)


def _stretched(values: tuple[float, ...], bands: int) -> tuple[float, ...]:
    average = sum(values) / len(values)
    # One band is taken as gray, not as red.
    return (average,) if bands == 1 else values[:bands] + (average,) * (bands - len(values))
