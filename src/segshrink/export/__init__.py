"""Writing models for other runtimes, checked against PyTorch before they get their name.

Names are imported when they are first used: a page is made from an ONNX file without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
