"""What exported files take and give, and what they say about it themselves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from segshrink.colors import format_color
from segshrink.errors import ModelError
from segshrink.model_description import ModelDescription
from segshrink.model_file import ModelFile
from segshrink.prediction.exported import METADATA_KEY
from segshrink.prediction.tiled import choose_tiling
from segshrink.working_size import depends_on_image, in_words


@dataclass(frozen=True)
class ExportedFile:
    """One exported model file.

    Attributes:
        path: The ``.onnx``, ``.xml`` or ``.tflite`` file.
        outputs: What it gives: some of "logits", "probabilities" and "classes", in this order.
        float_pixels: Whether it takes float32 whatever pixels the model was trained on.
    """

    path: Path
    outputs: tuple[str, ...] = ("logits", "classes")
    float_pixels: bool = False

    @property
    def tiles(self) -> bool:
        """Whether it takes one tile of a fixed size, channels last, instead of any number of images of any size."""
        return self.kind == ".tflite"

    @property
    def kind(self) -> str:
        """Its suffix in small letters."""
        return ModelFile(self.path).kind

    @property
    def stem(self) -> str:
        """Its name; that of an ``.onnx`` file without the suffix."""
        return self.path.stem if self.kind == ".onnx" else self.path.name

    @property
    def parts(self) -> tuple[Path, ...]:
        """The file, and that of its weights where they have one."""
        return ModelFile(self.path).parts

    def pixels(self, description: ModelDescription) -> str:
        """Return the type of the pixels that it takes."""
        return "uint8" if description.dtype == "uint8" and not self.float_pixels else "float32"


def band_names(description: ModelDescription) -> tuple[str, ...]:
    """Return the names of a model's bands; red, green and blue are meant where three have none."""
    if description.band_names is not None:
        return description.band_names
    usual = {1: ("gray",), 3: ("red", "green", "blue")}
    return usual.get(description.bands, tuple(f"band {number}" for number in range(1, description.bands + 1)))


def refuse_tiles(description: ModelDescription, kind: str) -> None:
    """Refuse a format whose files are given tiles, "qgis" or "tflite", for a model that must see whole images.

    Raises:
        ModelError: The model's working size depends on the image.
    """
    if kind in ("qgis", "tflite") and depends_on_image(description.resize):
        raise ModelError(
            f"a {kind} file is given tiles of an image, but this model works at {in_words(description.resize)}; "
            "export it to onnx, openvino or web, or train one with a factor, such as resize: 0.5"
        )


def describe_onnx(description: ModelDescription, *, takes_bytes: bool) -> dict[str, str]:
    """Return the metadata of an ONNX file: the description for segshrink, and what QGIS's plugin Deepness reads.

    Deepness cuts scenes into tiles, so a file whose working size depends on the image holds nothing for it.

    Deepness (https://github.com/PUTvision/qgis-plugin-deepness, ``model_base.py``) divides pixels by 255 and then
    applies ``(x - standardization_mean) / standardization_std``. Files normalize inside their graph, so these two undo
    the division. It feeds float32 numbers: a file that takes bytes says nothing of standardization.

    Args:
        description: The model's description.
        takes_bytes: Whether the file takes uint8 pixels.
    """
    own = {METADATA_KEY: json.dumps(description.to_dict())}
    if depends_on_image(description.resize):
        return own
    names, colors = description.classes.names, description.classes.colors
    entries: dict[str, object] = {
        "model_type": "Segmentor",
        "class_names": {str(number): name for number, name in enumerate(names)},
        "class_colors": {str(number): format_color(color) for number, color in enumerate(colors)},
        "tile_size": choose_tiling(description, runtime="onnxruntime").tile,
        "tiles_overlap": 15,  # percent
        "seg_thresh": 0.0,  # the most likely class, however unlikely it is
    }
    if description.resolution is not None:
        entries["resolution"] = round(100 * description.resolution, 6)  # centimeters per pixel
    if not takes_bytes:
        entries["standardization_mean"] = [0.0] * description.bands
        entries["standardization_std"] = [1 / 255] * description.bands
    return own | {key: json.dumps(value) for key, value in entries.items()}
