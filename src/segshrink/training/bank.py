"""The trainings of a bank's teachers: an ordinary recipe for each."""

from __future__ import annotations

from pathlib import Path

from segshrink.config import Distillation, Recipe, TeacherLearner
from segshrink.data import Dataset
from segshrink.data.folds import folds, unseen
from segshrink.data.pairing import find_pairs, find_unlabeled
from segshrink.data.sources import Sample
from segshrink.errors import ConfigError
from segshrink.run_records import BankRecord, MemberRecord


def member_recipes(recipe: Recipe, dataset: Dataset) -> list[Recipe]:
    """Return the recipe that trains each teacher of a recipe's bank; its ``data.split`` names the images.

    Args:
        recipe: Has a bank.
        dataset: The recipe's data set.

    Raises:
        ConfigError: The recipe has no bank, or more folds than groups of training images.
    """
    bank, consistent = _bank_of(recipe), set()
    if bank.consistency is not None:
        found = find_pairs(dataset.description)
        consistent = {pair.image for pair in find_unlabeled(dataset.description, found)}
    recipes = []
    for number, (model, left_out) in enumerate(zip(bank.models, _left_out(bank, dataset), strict=True)):
        teacher = bank.model_copy(update={"model": model, "members": [], "folds": None})
        changes = {"seed": recipe.seed + number, "teacher": teacher, "student": None, "distillation": Distillation()}
        if left_out:
            split = _named_split(dataset, left_out, consistent)
            changes["data"] = recipe.data.model_copy(update={"split": recipe.data.split.model_copy(update=split)})
        recipes.append(recipe.model_copy(update=changes))
    return recipes


def bank_record(recipe: Recipe, dataset: Dataset) -> BankRecord:
    """Return which training images each teacher of a recipe's bank has not seen; raises as ``member_recipes``."""
    images = {sample.name for sample in dataset.train}
    return BankRecord(
        members=tuple(
            MemberRecord(unseen=tuple(sorted(unseen(dataset, images - left_out))))
            for left_out in _left_out(_bank_of(recipe), dataset)
        ),
        images=tuple(sorted(images)),
    )


def _bank_of(recipe: Recipe) -> TeacherLearner:
    if recipe.teacher is None or not recipe.teacher.is_bank:
        raise ConfigError(f"the teacher of recipe '{recipe.name}' is no bank; give it 'folds' or 'members'")
    return recipe.teacher


def _left_out(bank: TeacherLearner, dataset: Dataset) -> list[frozenset[str]]:
    """Return the names of the images that each teacher learns without."""
    held = folds(dataset, bank.folds) if bank.folds else []
    return held + [frozenset()] * (len(bank.models) - len(held))


def _named_split(dataset: Dataset, left_out: frozenset[str], unlabeled: set[Path]) -> dict[str, list[str] | None]:
    """Return the fields of a split that names every image, without those left out.

    Those that would be learned from as unlabeled ones test.
    """

    def paths(samples: tuple[Sample, ...]) -> list[str]:
        root = dataset.description.root
        return [sample.image.relative_to(root).as_posix() for sample in samples]

    train = tuple(sample for sample in dataset.train if sample.name not in left_out)
    kept_away = tuple(sample for sample in dataset.train if sample.name in left_out and sample.image in unlabeled)
    test = paths((*dataset.test, *kept_away)) or None
    whole = dict.fromkeys(("held_out", "random"))
    return {"train": paths(train), "val": paths(dataset.val), "test": test, **whole}
