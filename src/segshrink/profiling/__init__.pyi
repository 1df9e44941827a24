# What the package gives, for readers, type checkers and lazy_loader.
from .latency import Job as Job
from .latency import Measurement as Measurement
from .latency import measure as measure
from .load import Load as Load
from .load import LoadWatch as LoadWatch
from .profile import profile_model as profile_model
