"""What an exported file says about itself."""

from __future__ import annotations

import json

from segshrink.classes import format_color
from segshrink.model_description import ModelDescription
from segshrink.prediction.exported import METADATA_KEY

TILE = 512


def describe_onnx(description: ModelDescription, *, takes_bytes: bool) -> dict[str, str]:
    """Return the metadata of an ONNX file: the description for segshrink, and what QGIS's plugin Deepness reads.

    Deepness (https://github.com/PUTvision/qgis-plugin-deepness, ``model_base.py``) divides pixels by 255 and then
    applies ``(x - standardization_mean) / standardization_std``. Files normalise inside their graph, so these two undo
    the division. It feeds float32 numbers: a file that takes bytes says nothing of standardization.

    Args:
        description: The model's description.
        takes_bytes: Whether the file takes uint8 pixels.
    """
    names, colors = description.classes.names, description.classes.colors
    entries: dict[str, object] = {
        "model_type": "Segmentor",
        "class_names": {str(number): name for number, name in enumerate(names)},
        "class_colors": {str(number): format_color(color) for number, color in enumerate(colors)},
        "tile_size": -(-TILE // description.stride) * description.stride,
        "tiles_overlap": 15,  # percent
        "seg_thresh": 0.0,  # the most likely class, however unlikely it is
    }
    if description.resolution is not None:
        entries["resolution"] = round(100 * description.resolution, 6)  # centimetres per pixel
    if not takes_bytes:
        entries["standardization_mean"] = [0.0] * description.bands
        entries["standardization_std"] = [1 / 255] * description.bands
    texts = {key: json.dumps(value) for key, value in entries.items()}
    return {METADATA_KEY: json.dumps(description.to_dict()), **texts}
