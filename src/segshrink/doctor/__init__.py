"""The doctor: why distillation doesn't work, and the recipe line that fixes it."""

from segshrink.doctor.diagnose import diagnose_recipe, find_better_use
from segshrink.doctor.findings import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "diagnose_recipe", "find_better_use"]
