"""Losses: pure functions of logits, float32 inside, mean over valid pixels, 0 when every pixel is ignored.

Names are imported when they are first asked for, but for one that a file has as well.
"""

import lazy_loader

from segshrink.losses.boundary import boundary as boundary

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
