"""Prediction without torch: backends run a model on batches of tiles, the predictor blends them into whole images.

Names are imported when they are first used: a process that times or tries a file reads no scenes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
