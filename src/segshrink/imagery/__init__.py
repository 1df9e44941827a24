"""Reading and writing images and masks without torch; every error names the file and the remedy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
