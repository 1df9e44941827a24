# What the package gives, for readers, type checkers and lazy_loader.
from .feature_roles import Role as Role
from .feature_roles import list_roles as list_roles
from .folder import load_model as load_model
from .model import SegmentationModel as SegmentationModel
from .model import count_parameters as count_parameters
from .registry import build_model as build_model
from .registry import model_ids as model_ids
from .taps import Taps as Taps
from .taps import tap_shapes as tap_shapes
from .weights import inherit_encoder as inherit_encoder
from .weights import load_encoder_weights as load_encoder_weights
from .weights import read_tensors as read_tensors
