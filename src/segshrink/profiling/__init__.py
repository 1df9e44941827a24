"""What a model costs on this machine: parameters, operations, latency and memory, each measured in one way.

Names are imported when they are first asked for, so that files of other runtimes can be measured without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
