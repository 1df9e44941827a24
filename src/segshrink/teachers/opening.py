"""Finding the teacher that a source names."""

from __future__ import annotations

from pathlib import Path

from segshrink.classes import ClassMap
from segshrink.config import TeacherSource
from segshrink.models import load_model
from segshrink.teachers.mapping import map_classes
from segshrink.teachers.teacher import Teacher
from segshrink.teachers.torch_teacher import TorchTeacher


def open_teacher(source: str | Path | TeacherSource, classes: ClassMap, *, bands: int = 3) -> Teacher:
    """Open a teacher for a student with ``classes``.

    Args:
        source: Run or model folder, or a source as recipes write it.
        classes: The student's classes; the teacher's are matched by name.
        bands: Bands of the images.

    Raises:
        FileError: A file is missing or can't be read.
        ModelError: The teacher is damaged, or has no class or other bands than the student.
    """
    if not isinstance(source, TeacherSource):
        source = TeacherSource(source=str(source))
    model = load_model(source.source, bands=bands)
    mapping = map_classes(classes.names, model.description.classes.names, source.classes)
    return TorchTeacher(model, classes, mapping, name=source.source)
