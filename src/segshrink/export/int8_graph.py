"""An OpenVINO graph in 8-bit integers: post-training quantization by NNCF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from segshrink.errors import ModelError, first_line
from segshrink.extras import needing, quiet_library


def int8_graph(model: Any, inputs: Sequence[NDArray[Any]], *, float_nodes: Sequence[str] = ()) -> Any:
    """Return the model in 8-bit integers.

    Weights become symmetric signed integers with a scale for each channel, activations unsigned ones with one range for
    each tensor (NNCF's preset "mixed"), and biases are corrected for what rounding shifts. Weights use 7 of their bits:
    processors without VNNI add pairs of products in 16 bits, which 8 overflow. Ranges for each channel of an activation
    end the process on processors with AMX, where a program compiles the graph for any shape (openvino#37577).

    Args:
        model: An ``openvino.Model`` with one input; left as it is.
        inputs: Calibration batches as it takes them.
        float_nodes: Friendly names of operations that stay in higher precision.

    Returns:
        An ``openvino.Model``.

    Raises:
        ModelError: NNCF can't quantize the model.
        MissingExtraError: OpenVINO or NNCF isn't installed.
    """
    require_nncf()
    import nncf
    from nncf.quantization import advanced_parameters as advanced

    try:
        with quiet_library():
            return nncf.quantize(
                model,
                nncf.Dataset(inputs),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(inputs),
                ignored_scope=nncf.IgnoredScope(names=list(float_nodes), validate=False),
                advanced_parameters=advanced.AdvancedQuantizationParameters(
                    overflow_fix=advanced.OverflowFix.ENABLE,
                    activations_quantization_params=advanced.QuantizationParameters(per_channel=False),
                ),
            )
    except Exception as error:  # whatever NNCF and OpenVINO raise
        raise ModelError(
            f"NNCF can't quantize the model ({first_line(error)}); leave it in float, or quantize it for ONNX Runtime"
        ) from error


def require_nncf() -> None:
    """Raise ``MissingExtraError`` where OpenVINO or NNCF isn't installed."""
    with needing("quantizing for OpenVINO", "compress"), quiet_library():
        import nncf  # noqa: F401
        import openvino  # noqa: F401
