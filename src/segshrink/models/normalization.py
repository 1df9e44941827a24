"""How raw pixel values become what a network was trained on. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segshrink.errors import ModelError, nearest

# For 8-bit RGB. ImageNet's statistics as torchvision gives them, times 255; "half" is TensorFlow's (x - 128) / 128.
_NAMED = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "half": ((128.0, 128.0, 128.0), (128.0, 128.0, 128.0)),
}
# Well within float32, in which a model computes.
_LARGEST = 1e30


@dataclass(frozen=True)
class Normalization:
    """``x -> (x - mean) / std``, band by band, in raw pixel units.

    Attributes:
        mean: One value a band.
        std: One value a band, above 0.

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
        if not all(abs(value) <= _LARGEST for value in (*self.mean, *self.std)) or min(self.std) < 1 / _LARGEST:
            raise ModelError(
                f"normalization needs means up to {_LARGEST:g} and stds from {1 / _LARGEST:g} to that, found "
                f"{self.mean} and {self.std}"
            )

    @property
    def bands(self) -> int:
        """How many bands it is for."""
        return len(self.mean)

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
        if name not in _NAMED:
            raise ModelError(f"unknown normalization '{name}'{nearest(name, _NAMED)}")
        mean, std = _NAMED[name]
        return cls(_stretched(mean, bands), _stretched(std, bands))

    def to_dict(self) -> dict[str, list[float]]:
        """Return a JSON-able mapping that ``from_dict`` reads back exactly."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Normalization:
        """Read back what ``to_dict`` gave; raises what a missing key or a wrong kind of value raises."""
        return cls(tuple(mapping["mean"]), tuple(mapping["std"]))


def _stretched(values: tuple[float, ...], bands: int) -> tuple[float, ...]:
    average = sum(values) / len(values)
    # One band is taken as grey, not as red.
    return (average,) if bands == 1 else values[:bands] + (average,) * (bands - len(values))
