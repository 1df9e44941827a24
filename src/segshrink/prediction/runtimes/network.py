"""A network in a file, opened by a runtime: what it takes and gives, and its answer to a batch."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.config import Adapter
from segshrink.errors import ConfigError, FileError, ModelError, first_line, nearest
from segshrink.file_kinds import refuse_no_model

# What torchvision and others call the output that counts.
_MAIN_OUTPUTS = ("out", "logits")
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Port:
    """An input or output of a network.

    Attributes:
        name: Its name in the file.
        shape: Lengths of its axes; None for one of any length.
        dtype: Type of its numbers.
        quantization: Scale and zero point, where integers stand for (integer - zero point) * scale.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    quantization: tuple[float, int] | None = None


class Network(ABC):
    """A network that takes one batch of images and nothing else.

    Args:
        path: The file, for messages.
        images: What it takes.
        outputs: Names of what it gives, in the file's order.
        metadata: What segshrink wrote into the file about its model, JSON; None: nothing.

    Attributes:
        runtime: "onnxruntime", "openvino" or "litert".
        layout: Order of the axes that files of this kind have as a rule.
    """

    runtime: str = ""
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    def __init__(self, path: Path, images: Port, outputs: Sequence[str], metadata: str | None = None) -> None:
        self.path = path
        self.images = images
        self.outputs = tuple(outputs)
        self.metadata = metadata

    @abstractmethod
    def output(self, number: int) -> Port:
        """Describe one output."""

    @abstractmethod
    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]: ...

    def run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        """Return one output, by its number, for a batch in the input's layout and type.

        Raises:
            ModelError: The runtime can't run this batch.
        """
        try:
            return self._run(images, output)
        except ModelError:
            raise
        except Exception as error:  # the runtimes' exceptions have no common public base
            raise ModelError(
                f"{self.path} failed in {self.runtime} on images of shape {images.shape}: {first_line(error)}"
            ) from error


def read_file(path: Path) -> bytes:
    """Read a network's file.

    Raises:
        FileError: It is missing, unreadable or empty.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist; give the file of a network")
    refuse_no_model(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; give the file of a network") from error


def check_inputs(path: Path, names: Sequence[str]) -> None:
    """Refuse a network that doesn't take exactly one input.

    Raises:
        ModelError: It doesn't.
    """
    if len(names) != 1:
        listed = f" ({', '.join(names)})" if names else ""
        raise ModelError(f"{path} takes {len(names)} inputs{listed}; give a network that takes images and nothing else")


def output_number(network: Network, adapter: Adapter) -> int:
    """Return the output that counts: as the adapter says, else the one called "out" or "logits", else the first.

    Raises:
        ConfigError: There is no such output.
    """
    names, output = network.outputs, adapter.output_name
    if "output_name" not in adapter.model_fields_set and len(names) > 1:
        number = next((names.index(usual) for usual in _MAIN_OUTPUTS if usual in names), 0)
        if names[number] not in _MAIN_OUTPUTS:
            _LOGGER.warning(
                "%s answers with %s; '%s' is taken; another is chosen by 'output_name' in its adapter",
                network.path,
                ", ".join(names),
                names[0],
            )
        return number
    if isinstance(output, str):
        if output not in names:
            raise ConfigError(f"{network.path} has no output '{output}'{nearest(output, names)}")
        return names.index(output)
    if not 0 <= output < len(names):
        raise ConfigError(
            f"{network.path} has {len(names)} output(s) ({', '.join(names)}), numbered from 0; the adapter's "
            f"'output_name' is {output}"
        )
    return output
