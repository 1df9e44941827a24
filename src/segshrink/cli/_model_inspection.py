"""What is inside a model, as a table: its classes, its size, and the features that can be tapped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from segshrink.cli._console import out_console
from segshrink.errors import FileError, ModelError

if TYPE_CHECKING:
    from segshrink.models import Role, SegmentationModel

# Height and width of the image whose features are shown, in pixels.
SIZE = 256
_YAML = (".yaml", ".yml")
_WEIGHTS = (".ckpt", ".onnx", ".pt", ".pth", ".safetensors", ".tflite")


@dataclass(frozen=True)
class ModelFinding:
    """What is inside a model.

    Attributes:
        source: What the user named.
        id: The network's id.
        parameters: How many it has.
        classes: Their names; None for a network by id, which gets them from a data set.
        bands: Bands of an image.
        stride: Sides are padded to multiples of this many pixels.
        roles: The features, at an image of ``size`` × ``size`` pixels.
        size: As above.
    """

    source: str
    id: str
    parameters: int
    classes: tuple[str, ...] | None
    bands: int
    stride: int
    roles: tuple[Role, ...]
    size: int = SIZE

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        return asdict(self)


def is_dataset(source: str) -> bool:
    """Tell whether a source is a data set description rather than a model, by its name and what lies there.

    Raises:
        ModelError: It is a file of weights alone.
    """
    path = Path(source)
    if path.suffix.lower() in _WEIGHTS and path.is_file():
        raise ModelError(
            f"{source} is neither a data set description (YAML) nor a model with its description; give a run folder or "
            "a model folder"
        )
    return path.is_file() or (path.suffix.lower() in _YAML and not path.is_dir())


def inspect_model(source: str) -> ModelFinding:
    """Look into a model.

    Args:
        source: Run folder, model folder, or network id.

    Raises:
        FileError: There is nothing of this name, or a file of a folder can't be read.
        ModelError: A folder is damaged, or the id is unknown.
    """
    from segshrink.models import count_parameters, list_roles

    model, trained = _opened(source)
    description = model.description
    return ModelFinding(
        source=source,
        id=description.id,
        parameters=count_parameters(model),
        classes=description.classes.names if trained else None,
        bands=description.bands,
        stride=description.stride,
        roles=tuple(list_roles(model, size=SIZE)),
    )


def print_model(found: ModelFinding) -> None:
    """Print a model's size and classes, and the table of its features."""
    console = out_console()
    console.print(Text.assemble((found.id, "bold"), f"  {found.source}" if found.source != found.id else ""))
    console.print(
        f"{found.parameters:,} parameters, {found.bands} bands, images padded to multiples of {found.stride} pixels"
    )
    unknown = "those of the data set that it is trained on (parameters are counted with two)"
    classes = unknown if found.classes is None else ", ".join(found.classes)
    console.print(f"classes: {classes}", markup=False)
    table = Table(title=f"Features of a {found.size} × {found.size} image", title_justify="left")
    for name in ("role", "path"):
        table.add_column(name)
    for name in ("channels", "stride", "height × width"):
        table.add_column(name, justify="right")
    for role in found.roles:
        channels, height, width = role.shape
        shown = "C" if role.name == "logits" and found.classes is None else str(channels)
        table.add_row(Text(role.name), Text(role.path or "(the model)"), shown, str(role.stride), f"{height} × {width}")
    console.print(table)


def _opened(source: str) -> tuple[SegmentationModel, bool]:
    """Open a model; also tell whether it knows its classes."""
    from segshrink.classes import ClassMap
    from segshrink.models import build_model, load_model

    path = Path(source)
    if path.is_dir():
        if not (path / "config.json").exists() and not (path / "model").is_dir():
            raise FileError(
                f"the folder {source} holds no model; give a data set description (YAML), a run folder, a model folder "
                "or a network id"
            )
        return load_model(path), True
    family, separator, name = source.partition(":")
    if path.is_absolute() or source.startswith((".", "~")) or ("/" in source and not separator):
        raise FileError(
            f"there is nothing at {source}; give a data set description (YAML), a run folder, a model folder or a "
            "network id"
        )
    if family == "hf":
        from segshrink.models.huggingface import load_huggingface

        return load_huggingface(name), True
    try:
        return build_model(source, ClassMap.build([("any", None, None), ("other", None, None)])), False
    except ModelError as error:
        if separator:
            raise
        raise ModelError(f"{source} is no file or folder, so it must be a network id: {error}") from error
