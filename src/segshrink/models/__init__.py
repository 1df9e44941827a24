"""Networks that take raw pixels: the registry of ids, model folders, and ``SegmentationModel``.

Names are imported when they are first asked for: reading a folder's description needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
