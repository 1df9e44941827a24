"""The doctor: why distillation doesn't work, and the recipe line that mends it."""

from segshrink.doctor.diagnose import Patient, examine, examine_teacher
from segshrink.doctor.findings import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "Patient", "examine", "examine_teacher"]
