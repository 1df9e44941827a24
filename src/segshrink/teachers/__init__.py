"""Teachers: whatever a student learns from, frozen, behind one interface; and the cache of its answers."""

from segshrink.teachers.cache import TeacherCache
from segshrink.teachers.mapping import ClassMapping, map_classes
from segshrink.teachers.opening import open_teacher
from segshrink.teachers.teacher import Teacher
from segshrink.teachers.torch_teacher import TorchTeacher

__all__ = ["ClassMapping", "Teacher", "TeacherCache", "TorchTeacher", "map_classes", "open_teacher"]
