"""Distilling on images without masks: a teacher's answers on the validation images judge the student."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import ClassMap
from segshrink.config import Recipe, absolute_recipe
from segshrink.data import Dataset, SceneStore, open_dataset, scenes
from segshrink.data.pairing import find_pairs
from segshrink.data.user_dataset import recipe_with_files
from segshrink.data.wildcards import has_wildcards, is_list_file
from segshrink.errors import ConfigError
from segshrink.files import replacing, writing
from segshrink.imagery import write_image
from segshrink.run_records import RunRecord
from segshrink.study_records import STUDY
from segshrink.teachers import open_teachers
from segshrink.training.resume import check_same_teacher
from segshrink.workflows.progress import Progress

_LOGGER = logging.getLogger(__name__)


def with_judge(recipe: Recipe, *, out: Path, control: bool, progress: Progress) -> tuple[Recipe, Dataset]:
    """Open a recipe's data set; where no image has a mask, let the classes of its teacher be the masks that judge.

    Args:
        recipe: With the teachers that teach.
        out: The student's run folder; the teacher's answers are written into ``teacher/maps``, in the place of
            another teacher's.
        control: Whether a control is wanted, too, which learns from masks alone.
        progress: Told how many answers were written.

    Returns:
        The recipe, whose data names the answers as masks, and the data set that this opens.

    Raises:
        ConfigError: Nothing names a teacher, or a control is wanted, and no training image has a mask; or the images
            are listed or split in a way that answers can't follow, or ``out`` holds a run or a study of another
            teacher.
    """
    recipe = recipe_with_files(recipe)
    dataset = open_dataset(recipe.data)
    name = dataset.description.name
    if dataset.labeled:
        return recipe, dataset
    if not recipe.distillation.teachers or control:
        missing = "a control learns from masks; leave it out" if control else "name a teacher with --teacher"
        raise ConfigError(f"no training image of '{name}' has a mask, so {missing}, or give masks")
    images = f"{len(dataset.val)} validation images"
    if any(sample.mask for sample in dataset.val):
        _LOGGER.warning(
            "no training image of '%s' has a mask: the student learns from the teacher alone, judged by the masks of "
            "%s",
            name,
            images,
        )
        return recipe, dataset
    maps = out.resolve() / "teacher" / "maps"
    recipe = _named_answers(absolute_recipe(recipe), maps)
    _write_answers(recipe, dataset, out, maps, progress)
    _LOGGER.warning(
        "no image of '%s' has a mask: the student learns from the teacher alone, judged by agreement with it, the mean "
        "IoU of its classes against the teacher's on %s",
        name,
        images,
    )
    return recipe, open_dataset(recipe.data)


def _named_answers(recipe: Recipe, maps: Path) -> Recipe:
    """Return the recipe whose data says where the answers about its images lie."""
    data = recipe.data
    if data.split.patches is not None or has_wildcards(str(maps)):
        what = "split.patches" if data.split.patches is not None else f"the folder {maps}"
        raise ConfigError(f"{what} can't be used where no image has a mask; choose another")
    # A path below the folder for each image, whatever the wildcards stand for.
    inside = "*" if is_list_file(data.images) else data.images.lstrip("/").replace("..", "up")
    changes = {"masks": f"{maps.as_posix()}/{inside}.png", "truth": "teacher"}
    return recipe.model_copy(update={"data": data.model_copy(update=changes)})


def _write_answers(recipe: Recipe, dataset: Dataset, out: Path, maps: Path, progress: Progress) -> None:
    """Write the teacher's classes on each validation image, where that wasn't done before.

    Raises:
        ConfigError: Images share a name, or what ``out`` holds was judged by another teacher.
    """
    places = {pair.image: recipe.data.root / str(pair.expected) for pair in find_pairs(recipe.data).pairs}
    if len({places[sample.image] for sample in dataset.val}) < len(dataset.val):
        raise ConfigError(f"images of '{recipe.data.name}' share a name; give 'images' as a wildcard, not as a list")
    teacher = open_teachers(recipe.distillation, dataset.classes, bands=dataset.bands)
    check_same_teacher(out, teacher)
    author = RunRecord.read_if_present(maps / "teacher.json")
    if author is None or author.identity != teacher.identity:
        if author is not None and (out / STUDY).exists():
            raise ConfigError(f"the study in {out} is judged by another teacher, {author.name}; choose another folder")
        for answer in maps.rglob("*.png"):
            answer.unlink()
        RunRecord(role="teacher", name=teacher.name, identity=teacher.identity).write(maps / "teacher.json")
    todo = [sample for sample in dataset.val if not places[sample.image].is_file()]
    told = partial(progress, "ask teacher")
    for number, scene in enumerate(scenes(SceneStore(todo, dataset.classes)), start=1):
        path = places[todo[number - 1].image]
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                write_image(temporary, _as_mask(teacher.predict_scene(scene).index, dataset.classes))
        told(number, len(todo))


def _as_mask(index: NDArray[np.uint8], classes: ClassMap) -> NDArray[Any]:
    """Return (H, W) class indices as the colors or values that masks hold."""
    if classes.values is None:
        return classes.colorize(index)
    values = np.array(classes.values, dtype=np.uint16 if max(classes.values) > 255 else np.uint8)
    return np.take(values, index)
