"""What is inside a model: its classes, its size, and the features that can be tapped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segshrink.classes import ClassMap
from segshrink.errors import FileError, ModelError
from segshrink.library import located
from segshrink.model_file import keras_path
from segshrink.models.feature_roles import Role, list_roles
from segshrink.models.folder import load_model
from segshrink.models.huggingface import load_huggingface
from segshrink.models.model import SegmentationModel, count_parameters
from segshrink.models.own_network import channels_of
from segshrink.models.registry import build_model
from segshrink.user_code import is_function
from segshrink.working_size import in_words

# Height and width of the image whose features are shown, in pixels.
SIZE = 256


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
        resize: The size at which it works on images, in words; None: at theirs.
    """

    source: str
    id: str
    parameters: int
    classes: tuple[str, ...] | None
    bands: int
    stride: int
    roles: tuple[Role, ...]
    size: int = SIZE
    resize: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        return asdict(self)


def inspect_model(source: str, *, trust: bool = False) -> ModelFinding:
    """Look into a model.

    Args:
        source: Run folder, model folder, Keras file, or network id; ``module:function`` is imported.
        trust: Let code run that the model names; see ``load_model``.

    Raises:
        FileError: There is nothing of this name, or a file of a folder can't be read.
        ModelError: A folder is damaged, or the id is unknown.
    """
    model, trained = open_source(source, trust=trust)
    description = model.description
    return ModelFinding(
        source=source,
        id=description.id,
        parameters=count_parameters(model),
        classes=description.classes.names if trained else None,
        bands=description.bands,
        stride=description.stride,
        roles=tuple(list_roles(model, size=SIZE)),
        resize=None if description.resize is None else in_words(description.resize),
    )


def open_source(source: str, *, trust: bool = False) -> tuple[SegmentationModel, bool]:
    """Open a model as ``inspect_model`` does; also tell whether it knows its classes."""
    path = Path(located(source))
    if keras_path(source) is not None:
        return load_model(source, trust=trust), True
    if path.is_dir():
        if not (path / "config.json").exists() and not (path / "model").is_dir():
            raise FileError(
                f"the folder {source} holds no model; give a data set description (YAML), a run folder, a model folder "
                "or a network id"
            )
        return load_model(path, trust=trust), True
    family, separator, name = source.partition(":")
    if path.is_absolute() or source.startswith((".", "~")) or ("/" in source and not separator):
        raise FileError(
            f"there is nothing at {source}; give a data set description (YAML), a run folder, a model folder or a "
            "network id"
        )
    if family == "hf":
        return load_huggingface(name), True
    try:
        classes = ClassMap.build([("any", None, None), ("other", None, None)])
        if is_function(source):  # it may have classes of its own, as many as it likes
            classes = ClassMap.build([f"class {number}" for number in range(channels_of(source))])
        return build_model(source, classes), False
    except ModelError as error:
        if separator:
            raise
        raise ModelError(f"{source} is no file or folder, so it must be a network id: {error}") from error
