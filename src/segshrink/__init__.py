"""Turn a big segmentation model into a small one that is as good, and prove it."""

__version__ = "0.1.0"
