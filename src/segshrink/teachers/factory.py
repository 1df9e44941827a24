"""Finding the teachers that a recipe names."""

from __future__ import annotations

from pathlib import Path

from segshrink.classes import ClassMap
from segshrink.config import TeacherSource, Teaching
from segshrink.errors import ConfigError
from segshrink.teachers.augmented import Augmented
from segshrink.teachers.ensemble import Ensemble
from segshrink.teachers.teacher import Teacher


def open_teachers(teaching: Teaching, classes: ClassMap, *, bands: int = 3) -> Teacher:
    """Open all teachers of a student as one.

    Each one's answers are averaged over mirror images and zooms first, then those of several.

    Args:
        teaching: The teachers, and how their answers become one.
        classes: The student's classes; the teachers' are matched by name.
        bands: Bands of the images.

    Raises:
        ConfigError: No teacher is named, or an adapter is wrong.
        FileError: A file is missing or can't be read.
        ModelError: A teacher is damaged, or has no class or other bands than the student.
        MissingExtraError: A library that a teacher needs isn't installed.
    """
    if not teaching.teachers:
        raise ConfigError("no teacher is named; list one under 'distillation.teachers' or give --teacher")
    opened = []
    for source in teaching.teachers:
        teacher = open_teacher(source, classes, bands=bands)
        # Answers that are looked up by a scene's name don't depend on its pixels.
        plain = teacher.whole_scenes or not (teaching.flips or teaching.scales != [1.0])
        opened.append(teacher if plain else Augmented(teacher, flips=teaching.flips, scales=teaching.scales))
    if len(opened) == 1:
        return opened[0]
    return Ensemble(opened, [source.weight for source in teaching.teachers], combine=teaching.combine)


def open_teacher(source: str | Path | TeacherSource, classes: ClassMap, *, bands: int = 3) -> Teacher:
    """Open one teacher for a student with ``classes``.

    Args:
        source: Run or model folder, or a source as recipes write it.
        classes: The student's classes; the teacher's are matched by name.
        bands: Bands of the images.

    Raises:
        ConfigError: The adapter is wrong, or the source says what it can't use.
        FileError: A file is missing or can't be read.
        ModelError: The teacher is damaged, or has no class or other bands than the student.
        MissingExtraError: A library that it needs isn't installed.
    """
    if not isinstance(source, TeacherSource):
        source = TeacherSource(source=str(source))
    kind = source.source.partition(":")[0]
    if kind in ("onnx", "tflite"):
        from segshrink.teachers.black_box import open_black_box

        return open_black_box(source, classes, bands=bands)
    if kind == "labels":
        from segshrink.teachers.label_folder import open_label_folder

        return open_label_folder(source, classes)
    from segshrink.teachers.torch_sources import open_torch

    return open_torch(source, classes, bands=bands)


def is_data(source: TeacherSource) -> bool:
    """Tell whether a teacher is opened by reading local files alone: it runs no code and asks no network."""
    kind = source.source.partition(":")[0]
    if kind in ("smp", "torchvision"):
        asks = any("weights" in key for key in source.options)
        return source.weights is not None and source.weights.is_file() and not asks
    return kind in ("onnx", "tflite", "labels") or Path(source.source).is_dir()
