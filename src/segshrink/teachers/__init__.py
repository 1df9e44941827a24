"""Teachers: frozen models that a student learns from, behind one interface."""

from segshrink.teachers.cache import TeacherCache
from segshrink.teachers.teacher import Teacher, open_teacher

__all__ = ["Teacher", "TeacherCache", "open_teacher"]
