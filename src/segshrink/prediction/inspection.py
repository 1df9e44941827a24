"""What is inside a file of a network: what it takes and gives, and how it is read here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segshrink.config import adapter_beside
from segshrink.errors import ConfigError, ModelError
from segshrink.model_file import ModelFile
from segshrink.prediction.backends import backend_of, open_network
from segshrink.prediction.foreign import ForeignBackend
from segshrink.prediction.runtimes.network import Port


@dataclass(frozen=True)
class FileFinding:
    """What is inside a file of a network.

    Attributes:
        source: What the user named.
        runtime: What runs it.
        bytes: Its size, with its weights.
        described: Whether segshrink wrote it, with all that is to be known about it.
        takes: Name, shape and type of its input; None stands for sides of any length.
        gives: The same of each output.
        reading: How it takes pixels and what it answers, in words.
        classes: Their names; None where it can't be used as it is.
        bands: Bands of an image; None likewise.
        problem: Why it can't be used as it is; None: it can.
    """

    source: str
    runtime: str
    bytes: int
    described: bool
    takes: dict[str, Any]
    gives: tuple[dict[str, Any], ...]
    reading: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    bands: int | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        return asdict(self)


def inspect_file(source: str | Path) -> FileFinding:
    """Look into an ``.onnx``, ``.xml`` or ``.tflite`` file of anybody.

    Raises:
        FileError: It is missing or unreadable.
        ModelError: Its runtime can't open it, or it doesn't take one input.
        MissingExtraError: Its runtime isn't installed.
    """
    file = ModelFile.find(source)
    network = open_network(file)
    found: dict[str, Any] = {
        "source": str(source),
        "runtime": network.runtime,
        "bytes": file.size_bytes,
        "described": network.metadata is not None,
        "takes": _port(network.images),
        "gives": tuple(_port(network.output(number)) for number in range(len(network.outputs))),
    }
    try:
        backend = backend_of(network, file)
    except (ConfigError, ModelError) as error:
        return FileFinding(**found, problem=str(error))
    if isinstance(backend, ForeignBackend):
        scaled = bool({"mean", "std"} & adapter_beside(file).model_fields_set)
        found["reading"] = tuple(_reading(backend, scaled=scaled, sidecar=file.adapter.name))
    return FileFinding(**found, classes=backend.classes.names, bands=backend.bands)


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "shape": list(port.shape), "dtype": port.dtype.name}


def _reading(backend: ForeignBackend, *, scaled: bool, sidecar: str) -> Iterator[str]:
    """Say in words how a file of anybody is read."""
    file = backend.file
    size = file.resizing.size
    order = ", blue first" if file.takes.bgr else ""
    sides = "of any size" if size is None else f"of {size[0]} x {size[1]} pixels ({file.resizing.how})"
    yield f"images {sides}, {file.takes.layout}{order}"
    scaling = file.takes.scaling
    if scaled:
        yield f"pixels become (pixel - {_numbers(scaling.mean)}) / {_numbers(scaling.std)}"
    else:
        yield f"pixels are given as they are; if it learned from others, say so in {sidecar} ('mean', 'std')"
    known = {None: "logits or probabilities, told by the first answer", True: "probabilities", False: "logits"}
    kind = "class numbers" if file.gives.kind == "labels" else known[file.gives.returns_probabilities]
    yield f"'{file.gives.port.name}' gives {kind}"


def _numbers(values: tuple[float, ...]) -> str:
    shown = [f"{value:g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else f"[{', '.join(shown)}]"
