"""Turn a big segmentation model into a small one that is as good, and prove it.

The names in ``__init__.pyi`` and the rooms they live in are imported when they are first used: ``import segshrink``
waits for neither torch nor anything else.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import lazy_loader

from segshrink.version import __version__

_lazily, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    try:
        if name in __all__ or find_spec(f"{__name__}.{name}") is None:
            return _lazily(name)
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        from segshrink.extras import missing_extra

        explained = missing_extra(error, feature=f"segshrink.{name}")
        if explained is None:
            raise
        raise explained from error
