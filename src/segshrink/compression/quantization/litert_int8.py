"""Full-integer TFLite files: 8-bit weights and activations, uint8 in and out, for chips and phones."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import ModelError, first_line
from segshrink.extras import needing, quiet_library
from segshrink.prediction.runtimes.litert import METADATA_FILE, LiteRtNetwork

# Number of an operator in TFLite's schema, and its version.
_QUANTIZE, _VERSION = 114, 1
# From int8 to uint8.
_SHIFT = 128


def require_quantizer() -> None:
    """Raise ``MissingExtraError`` where what writes and quantizes TFLite files isn't installed."""
    with needing("a full-integer TFLite file", "litert"):
        import ai_edge_quantizer  # noqa: F401
        import litert_torch  # noqa: F401


def write_litert_int8(source: Path, path: Path, tiles: Sequence[NDArray[Any]]) -> None:
    """Quantize a float TFLite file of ``export_tflite(float_pixels=True)`` to 8-bit integers from end to end.

    Pixels go in as they are: the input's scale is 1 and its zero point 0. Weights have a scale for each channel,
    activations one for each tensor, from the extremes over the tiles.

    Args:
        source: The float file.
        path: Where to.
        tiles: Calibration tiles (bands, H, W), raw 8-bit pixel values; what is larger than the file's tile is cut off.

    Raises:
        ModelError: An operator can't be expressed in 8 bits.
        MissingExtraError: ai-edge-quantizer isn't installed.
    """
    require_quantizer()
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    with zipfile.ZipFile(source) as archive:
        description = archive.read(METADATA_FILE)
    ((signature, names),) = Interpreter(model_path=str(source)).get_signature_list().items()
    network = LiteRtNetwork(source)
    side = network.images.shape[1] or 0
    samples = [{names["inputs"][0]: _fitted(tile, side)} for tile in tiles]
    try:
        with quiet_library():
            work = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
            ranges = work.calibrate({signature: samples})
            for bound, value in (("min", 0), ("max", 255)):
                ranges[network.images.name][bound] = np.full_like(ranges[network.images.name][bound], value)
            content = bytes(work.quantize(ranges).quantized_model)
    except Exception as error:  # the quantizer raises what an operator raises
        raise ModelError(f"the network can't be quantized for LiteRT ({first_line(error)})") from error
    path.write_bytes(with_unsigned_ends(content))
    if {network.images.dtype for network in [LiteRtNetwork(path)]} != {np.dtype(np.uint8)}:
        raise ModelError("the network can't be quantized for LiteRT from end to end; choose another network")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_FILE, description)


def with_unsigned_ends(content: bytes) -> bytes:
    """Let a TFLite file that takes and gives int8 take and give uint8, by a Quantize operator at each end."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = _QUANTIZE
    code.version = _VERSION
    model.operatorCodes.append(code)

    def unsigned(ends: Any, *, first: bool) -> None:
        for place, index in enumerate(list(ends)):
            inner = graph.tensors[index]
            if inner.type != schema.TensorType.INT8:
                continue
            outer, scales = schema.TensorT(), schema.QuantizationParametersT()
            scales.scale = list(inner.quantization.scale)
            scales.zeroPoint = [int(zero) + _SHIFT for zero in inner.quantization.zeroPoint]
            outer.name, outer.type, outer.shape, outer.quantization = (
                inner.name,
                schema.TensorType.UINT8,
                inner.shape,
                scales,
            )
            inner.name = inner.name + b"/int8"
            graph.tensors.append(outer)
            ends[place] = len(graph.tensors) - 1
            operator = schema.OperatorT()
            operator.opcodeIndex = len(model.operatorCodes) - 1
            operator.inputs = [ends[place] if first else index]
            operator.outputs = [index if first else ends[place]]
            operator.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
            operator.builtinOptions = schema.QuantizeOptionsT()
            graph.operators.insert(0 if first else len(graph.operators), operator)
            for named in (entry for each in model.signatureDefs or () for entry in (*each.inputs, *each.outputs)):
                if named.tensorIndex == index:
                    named.tensorIndex = ends[place]

    graph.inputs, graph.outputs = list(graph.inputs), list(graph.outputs)
    unsigned(graph.inputs, first=True)
    unsigned(graph.outputs, first=False)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _fitted(tile: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Return a tile (bands, H, W) as the network takes it, (1, side, side, bands), its edge repeated."""
    pixels = tile[:, :side, :side]
    missing = [(0, 0), *((0, side - length) for length in pixels.shape[1:])]
    return np.ascontiguousarray(np.pad(pixels, missing, mode="edge").transpose(1, 2, 0)[np.newaxis], np.float32)
