"""An Optuna study of a recipe: which learning rate, loss weights, crops or widths make the best student."""

from segshrink.tuning.study import Settings

__all__ = ["Settings"]
