"""Teachers: whatever a student learns from, frozen, behind one interface; and the cache of its answers."""

from segshrink.teachers.augmented import Augmented
from segshrink.teachers.bank import Bank
from segshrink.teachers.cache import TeacherCache
from segshrink.teachers.ensemble import Ensemble
from segshrink.teachers.factory import is_data, open_bank, open_teacher, open_teachers
from segshrink.teachers.mapping import ClassMapping, map_classes
from segshrink.teachers.out_of_fold import open_out_of_fold
from segshrink.teachers.teacher import Teacher
from segshrink.teachers.torch_teacher import TorchTeacher

__all__ = [
    "Augmented",
    "Bank",
    "ClassMapping",
    "Ensemble",
    "Teacher",
    "TeacherCache",
    "TorchTeacher",
    "is_data",
    "map_classes",
    "open_bank",
    "open_out_of_fold",
    "open_teacher",
    "open_teachers",
]
