# What the package gives, for readers, type checkers and lazy_loader.
from .display import to_display as to_display
from .display import write_overlay as write_overlay
from .georeference import Georeference as Georeference
from .mask_options import MaskOptions as MaskOptions
from .masks import read_mask as read_mask
from .reading import ImageInfo as ImageInfo
from .reading import ReadOptions as ReadOptions
from .reading import probe as probe
from .reading import read_image as read_image
from .reading import read_valid_image as read_valid_image
from .scenes import Scene as Scene
from .scenes import expand_sources as expand_sources
from .scenes import open_scene as open_scene
from .writing import write_image as write_image
from .writing import write_index_png as write_index_png
