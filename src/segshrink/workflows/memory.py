"""Batches and crops with which a training stays below a limit of memory, found by training a few steps."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from segshrink.config import Learner, Recipe
from segshrink.data import Dataset, open_dataset
from segshrink.data.sources import Sample
from segshrink.errors import ConfigError, TrainingError
from segshrink.files import scratch_folder
from segshrink.imagery import probe
from segshrink.run_folder import RunFolder
from segshrink.training.lightning_fit import quieten_lightning
from segshrink.training.run import Role
from segshrink.training.run import train as train_network
from segshrink.user_code import all_trusted, trusted_functions
from segshrink.workflows.progress import Progress, silent

# Steps after which a training takes no more memory.
_STEPS = 4
_SMALLEST_CROP = 64
_LOGGER = logging.getLogger(__name__)


def fit_memory(recipe: Recipe, *, role: Role, limit_mb: float, progress: Progress = silent) -> Recipe:
    """Return a recipe that trains a role within a limit of memory, by smaller batches first and smaller crops then.

    Gradients of smaller batches are added up, so that a step sees as many crops as before; batch normalization sees
    the smaller batch. Each choice is measured: a process of its own trains a few steps and scores the largest
    validation image. The largest resident set of the whole process counts, its libraries included.

    Args:
        recipe: What to train.
        role: Which of its networks; it learns from labels alone.
        limit_mb: Largest memory, in 10^6 bytes.
        progress: Told how many choices were measured.

    Raises:
        ConfigError: Several processes are to train.
        TrainingError: Not even single crops of the smallest size fit; says what they take.
        SegshrinkError: The training fails for another reason.
    """
    if _learner(recipe, role).training.processes > 1:
        raise ConfigError(
            "what a training takes is measured in one process; set training.devices and training.nodes to 1, or choose "
            "crops.batch_size yourself"
        )
    choices = list(_choices(recipe, role))
    for number, choice in enumerate(choices):
        progress("measure memory", number, len(choices), _shown(choice, role))
        taken = measured_memory(choice, role=role)
        if taken is not None and taken <= limit_mb:
            _LOGGER.info("%s take %.0f of %.0f MB", _shown(choice, role), taken, limit_mb)
            return choice
    least = "die for want of memory" if taken is None else f"take {taken:.0f} MB"
    raise TrainingError(
        f"{_shown(choices[-1], role)} {least}, more than the limit of {limit_mb:.0f} MB; choose a smaller network, or "
        "give more memory"
    )


def measured_memory(recipe: Recipe, *, role: Role) -> float | None:
    """Return the largest resident set of a process that trains a few steps and judges once, in 10^6 bytes.

    Of a bank each different network is measured, and the largest counts. None: a process was killed, as happens where
    memory is used up.

    Raises:
        SegshrinkError: The training fails.
    """
    bank = recipe.teacher
    if role != "teacher" or bank is None:
        return _measured(recipe, role)
    networks = [network for number, network in enumerate(bank.models) if network not in bank.models[:number]]
    alone = [bank.model_copy(update={"model": network, "members": [], "folds": None}) for network in networks]
    taken = [_measured(recipe.model_copy(update={"teacher": teacher}), role) for teacher in alone]
    return None if None in taken else max(filter(None, taken))


def _measured(recipe: Recipe, role: Role) -> float | None:
    """Measure the training of a single network."""
    context = multiprocessing.get_context("spawn")
    with scratch_folder() as folder:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_train_briefly, args=(recipe, role, folder / "run", theirs, all_trusted()))
        process.start()
        theirs.close()
        try:
            error = ours.recv()
        except EOFError:
            return None
        finally:
            process.join()
        if error is not None:
            raise error
        return RunFolder(folder / "run").run().peak_memory_mb


def _train_briefly(recipe: Recipe, role: Role, out: Path, answer: Connection, trusted: Sequence[str]) -> None:
    crops = {"per_epoch": _STEPS * recipe.crops.batch_size * _learner(recipe, role).training.accumulate}
    brief = _changed(recipe, role, crops, epochs=1, patience=None, keep="last").model_copy(update={"trackers": []})
    quieten_lightning()
    try:
        with trusted_functions(*trusted):
            train_network(brief, out=out, role=role, dataset=_largest_judged(open_dataset(recipe.data)))
    except Exception as error:  # whoever waits raises it again
        answer.send(error)
    else:
        answer.send(None)


def _largest_judged(dataset: Dataset) -> Dataset:
    """Let the largest validation image stand for all."""

    def pixels(sample: Sample) -> int:
        shape = sample.window or probe(sample.image, sample.options)
        return shape.height * shape.width

    return replace(dataset, val=(max(dataset.val, key=pixels),))


def _choices(recipe: Recipe, role: Role) -> Iterator[Recipe]:
    """Yield recipes, the hungriest first."""
    size, batch = recipe.crops.size, recipe.crops.batch_size
    while True:
        for parts in (number for number in range(1, batch + 1) if batch % number == 0):
            crops = {"size": size, "batch_size": batch // parts}
            yield _changed(recipe, role, crops, accumulate=parts * _learner(recipe, role).training.accumulate)
        if size <= _SMALLEST_CROP:
            return
        size = max(_SMALLEST_CROP, size // 64 * 32)


def _changed(recipe: Recipe, role: Role, crops: Mapping[str, int], **training: object) -> Recipe:
    learner = _learner(recipe, role)
    trained = learner.model_copy(update={"training": learner.training.model_copy(update=training)})
    section = "teacher" if role == "teacher" else "student"
    return recipe.model_copy(update={section: trained, "crops": recipe.crops.model_copy(update=crops)})


def _learner(recipe: Recipe, role: Role) -> Learner:
    learner = recipe.teacher if role == "teacher" else recipe.student
    if learner is None:
        raise ConfigError(f"the recipe has no '{'teacher' if role == 'teacher' else 'student'}' to train; add one")
    return learner


def _shown(recipe: Recipe, role: Role) -> str:
    crops, times = recipe.crops, _learner(recipe, role).training.accumulate
    return f"batches of {crops.batch_size} crops of {crops.size} pixels" + (f", {times} a step" if times > 1 else "")
