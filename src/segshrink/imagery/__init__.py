"""Reading and writing images and masks without torch; every error names the file and the remedy."""

from segshrink.imagery.display import to_display, write_overlay
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.masks import read_mask
from segshrink.imagery.reading import ImageInfo, ReadOptions, probe, read_image, read_valid_image
from segshrink.imagery.scenes import Scene, expand_sources, open_scene
from segshrink.imagery.vector_masks import VectorLabels
from segshrink.imagery.writing import write_image, write_index_png

__all__ = [
    "Georeference",
    "ImageInfo",
    "ReadOptions",
    "Scene",
    "VectorLabels",
    "expand_sources",
    "open_scene",
    "probe",
    "read_image",
    "read_mask",
    "read_valid_image",
    "to_display",
    "write_image",
    "write_index_png",
    "write_overlay",
]
