"""Whether an adapter's scaling is written in the units that the images' pixels have."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segshrink.config import Adapter
from segshrink.errors import ConfigError
from segshrink.model_description import Normalization

if TYPE_CHECKING:
    from torch import Tensor

_LOGGER = logging.getLogger(__name__)
# No pixel from 0 to 1 is this large, be it ever so bright, and no mean or deviation of them.
_LARGE = 16.0
_BYTE = 255.0


def check_units(scaling: Normalization | None, pixels: NDArray[Any] | Tensor, name: str) -> None:
    """Refuse a scaling for pixels from 0 to 1 where they are far larger, and one for large pixels where they aren't.

    Args:
        scaling: The adapter's ``mean`` and ``std``; None: it has none.
        pixels: Raw pixel values of any shape.
        name: How messages call the network.

    Raises:
        ConfigError: It tells the lines to write.
    """
    if scaling is None or (not any(scaling.mean) and all(value == 1 for value in scaling.std)):
        return
    highest, largest = max(*map(abs, scaling.mean), *scaling.std), float(pixels.max())
    if scaling.for_unit_pixels and largest > _LARGE:
        problem = f"for pixels from 0 to 1, but these images hold values up to {largest:g}"
        if largest <= _BYTE:
            raise ConfigError(f"{_what(scaling, name)} {problem}; write {_lines(scaling, _BYTE)}")
        raise ConfigError(
            f"{_what(scaling, name)} {problem}; multiply both by the value that stands for 1 in them: with 65535 "
            f"{_lines(scaling, 65535.0)}, with 10000 (reflectances) {_lines(scaling, 10000.0)}"
        )
    if highest > _LARGE and 0 < largest <= 1 and float(pixels.min()) >= 0 and not _whole(pixels):
        top = _BYTE if highest <= _BYTE else 65535.0
        raise ConfigError(
            f"{_what(scaling, name)} for pixels up to {top:g}, but these images hold values from 0 to {largest:g}; "
            f"divide both by the value that 1 stands for: with {top:g} {_lines(scaling, 1 / top)}"
        )


def tell_unscaled(adapter: Adapter, name: str) -> None:
    """Log that a network gets pixels as they are, where nothing says how it wants them scaled.

    Args:
        adapter: What is said about it.
        name: How messages call the network.
    """
    if not adapter.model_fields_set & {"mean", "std"} and adapter.dtype not in ("uint8", "int8"):
        _LOGGER.warning(
            "%s gets pixels as they are, such as 0 to 255; if it learned from scaled ones, say 'mean' and 'std' in its "
            "adapter",
            name,
        )


def _what(scaling: Normalization, name: str) -> str:
    return f"{name}: its adapter's 'mean' {_listed(scaling.mean)} and 'std' {_listed(scaling.std)} are"


def _lines(scaling: Normalization, factor: float) -> str:
    """Return the lines of an adapter that say the same in other units."""
    mean, std = ([value * factor for value in values] for values in (scaling.mean, scaling.std))
    return f"'mean: {_listed(mean)}' and 'std: {_listed(std)}'"


def _listed(values: tuple[float, ...] | list[float]) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in values)}]"


def _whole(pixels: NDArray[Any] | Tensor) -> bool:
    values = np.asarray(pixels)
    return bool((values == np.round(values)).all())
