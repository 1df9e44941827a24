"""A graph of OpenVINO in 8-bit integers: post-training quantisation by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from segshrink.errors import MissingExtraError, ModelError


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
        ModelError: NNCF can't quantise the model.
        MissingExtraError: OpenVINO or NNCF isn't installed.
    """
    require_nncf()
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        OverflowFix,
        QuantizationParameters,
    )

    try:
        with _silenced():
            return nncf.quantize(
                model,
                nncf.Dataset(inputs),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(inputs),
                ignored_scope=nncf.IgnoredScope(names=list(float_nodes), validate=False),
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.ENABLE,
                    activations_quantization_params=QuantizationParameters(per_channel=False),
                ),
            )
    except Exception as error:  # whatever NNCF and OpenVINO raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"NNCF can't quantise the model ({first}); leave it in float, or quantise it for ONNX Runtime"
        ) from error


def require_nncf() -> None:
    """Raise ``MissingExtraError`` where OpenVINO or NNCF isn't installed."""
    try:
        with _silenced():
            import nncf  # noqa: F401
            import openvino  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("quantising for OpenVINO", "compress") from error


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep NNCF's progress bars, logs and warnings to themselves."""
    logger = logging.getLogger("nncf")
    before = logger.level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(before)
