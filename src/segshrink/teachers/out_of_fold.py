"""Trained teachers that answer only about images of whose ground they have seen nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segshrink.data import Dataset, open_dataset
from segshrink.data.folds import unseen
from segshrink.data.sources import Sample
from segshrink.errors import ConfigError
from segshrink.run_folder import RunFolder
from segshrink.run_records import BankRecord, MemberRecord
from segshrink.teachers.augmented import Augmented
from segshrink.teachers.bank import Bank
from segshrink.teachers.factory import open_teacher
from segshrink.teachers.teacher import Teacher


def open_out_of_fold(
    runs: Sequence[str | Path], dataset: Dataset, samples: Sequence[Sample]
) -> tuple[Teacher, tuple[Sample, ...]]:
    """Open the teachers of banks and runs as one that never answers about ground that it learned from.

    Mirror images and zooms are those of the first one's recipe.

    Args:
        runs: Run folders of banks or of single teachers, whose recipes say which image files they learned from.
        dataset: Says what shows the same ground, and in which classes to answer.
        samples: The data set's images that are asked about.

    Returns:
        The teacher, which answers about whole named scenes, and those of the samples that a member hasn't seen.

    Raises:
        ConfigError: No member has not seen an image.
        FileError: A folder holds no run, or its data set isn't there.
        ModelError: A member is damaged, or knows no class of the data set.
    """
    folders = [RunFolder(run) for run in runs]
    members = [run for folder in folders for run in folder.members or [folder.path]]
    learned = [images for folder in folders for images in _learned(folder)]
    everything = (*dataset.train, *dataset.val, *dataset.test, *samples)
    asked = {sample.name for sample in samples}
    records = []
    for images in learned:
        names = {sample.name for sample in everything if sample.image.resolve() in images}
        records.append(MemberRecord(unseen=tuple(sorted(unseen(dataset, names, asked)))))
    answered = {name for record in records for name in record.unseen}
    kept = tuple(sample for sample in samples if sample.name in answered)
    if not kept:
        raise ConfigError(
            f"each teacher of {', '.join(map(str, runs))} has seen the ground of all {len(samples)} images, so none "
            "can judge their labels; train a bank with 'folds' (docs/teaching.md), or declare smaller 'groups'"
        )
    bank = Bank(
        [open_teacher(member, dataset.classes, bands=dataset.bands) for member in members],
        BankRecord(members=tuple(records), images=tuple(sorted(asked))),
        out_of_fold=True,
    )
    views = folders[0].recipe().distillation
    plain = not views.flips and views.scales == [1.0]
    return bank if plain else Augmented(bank, flips=views.flips, scales=views.scales), kept


def _learned(folder: RunFolder) -> list[set[Path]]:
    """Return the image files that each teacher of a folder learned from, or that show the ground of one of them."""
    recipe, role = folder.recipe(), folder.run().role
    dataset, learner = open_dataset(recipe.data), recipe.teacher if role == "teacher" else recipe.student
    uses_unlabeled = role == "student" or (learner is not None and learner.consistency is not None)
    learned = (*dataset.train, *(dataset.unlabeled if uses_unlabeled else ()))
    files = {sample.name: sample.image.resolve() for sample in learned}
    if not folder.has_bank:
        return [set(files.values())]
    return [{file for name, file in files.items() if name not in member.unseen} for member in folder.bank().members]
