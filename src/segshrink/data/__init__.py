"""Images and masks on their way to training: sources, decoded store, crops, augmentation, splits, inspection.

Names are imported when they are first used, so that finding and inspecting files doesn't wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
