from .budget import Budget as Budget
from .pruning.prune import prune as prune
from .pruning.width_scaling import shrink as shrink
from .quantization import QuantizationResult as QuantizationResult
from .quantization import quantize as quantize
