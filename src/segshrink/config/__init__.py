"""Recipes and data set descriptions: validated, unknown keys refused."""

from segshrink.config.dataset import ClassEntry, DatasetDescription, Split
from segshrink.config.loading import (
    absolute_recipe,
    adapter_beside,
    adapter_of,
    as_recipe,
    distillation_overrides,
    dump_yaml,
    load_adapter,
    load_dataset,
    load_open_recipe,
    load_recipe,
    read_yaml,
)
from segshrink.config.recipe import (
    Augmentation,
    Consistency,
    Crops,
    Distillation,
    Learner,
    ModelChoice,
    Recipe,
    TeacherLearner,
    Term,
)
from segshrink.config.search_space import OpenValue, Space
from segshrink.config.teachers import Adapter, TeacherSource, Teaching
from segshrink.config.training import NamedOptions, Training

__all__ = [
    "Adapter",
    "Augmentation",
    "ClassEntry",
    "Consistency",
    "Crops",
    "DatasetDescription",
    "Distillation",
    "Learner",
    "ModelChoice",
    "NamedOptions",
    "OpenValue",
    "Recipe",
    "Space",
    "Split",
    "TeacherLearner",
    "TeacherSource",
    "Teaching",
    "Term",
    "Training",
    "absolute_recipe",
    "adapter_beside",
    "adapter_of",
    "as_recipe",
    "distillation_overrides",
    "dump_yaml",
    "load_adapter",
    "load_dataset",
    "load_open_recipe",
    "load_recipe",
    "read_yaml",
]
