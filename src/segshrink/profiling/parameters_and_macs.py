"""What a model costs on any machine: parameters, operations, bytes; and the files that other runtimes need."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segshrink.model_file import ModelFile
from segshrink.profiling.plan import EXPORTED, Entry

if TYPE_CHECKING:
    from segshrink.models import SegmentationModel


@dataclass(frozen=True)
class Costs:
    """What is the same everywhere.

    Attributes:
        file: What the runtime opens.
        file_bytes: Size of the weights' file; of both files where weights stand beside the graph.
        parameters: How many the model has; None where the file can't tell.
        macs: Multiply-accumulates of one image; None for exported files.
    """

    file: Path
    file_bytes: int
    parameters: int | None
    macs: int | None


class CostCounter:
    """Finds the costs of entries; every folder is loaded once and exported once for each runtime.

    Args:
        scratch: Folder for exported files.
        size: Side in pixels of the square image whose operations are counted.
    """

    def __init__(self, scratch: Path, *, size: int) -> None:
        self._scratch = scratch
        self._size = size
        self._models: dict[Path, tuple[SegmentationModel, Costs]] = {}
        self._files: dict[tuple[Path, str], Path] = {}

    def costs(self, entry: Entry) -> Costs:
        """Return an entry's costs.

        Raises:
            ModelError: The model can't be loaded, or can't be exported for this runtime.
            FileError: A file is missing or unreadable.
        """
        if not entry.source.is_dir():
            size = ModelFile(entry.source).size_bytes
            return Costs(entry.source, size, count_file_parameters(entry.source), None)
        model, costs = self._model(entry.source)
        if not entry.is_exported:
            return costs
        file = self._exported(entry, model)
        return replace(costs, file=file, file_bytes=ModelFile(file).size_bytes)

    def _model(self, source: Path) -> tuple[SegmentationModel, Costs]:
        if source not in self._models:
            from segshrink.models import count_parameters, load_model
            from segshrink.profiling.profile import count_macs

            model = load_model(source).eval()
            weights = ModelFile.find(source).size_bytes
            costs = Costs(source, weights, count_parameters(model), count_macs(model, size=self._size))
            self._models[source] = (model, costs)
        return self._models[source]

    def _exported(self, entry: Entry, model: SegmentationModel) -> Path:
        key = (entry.source, entry.runtime)
        if key not in self._files:
            folder = self._scratch / str(len(self._files))
            folder.mkdir()
            name = entry.source.resolve().name
            self._files[key] = _export(model, folder / f"{name}{EXPORTED[entry.runtime]}")
        return self._files[key]


def _export(model: SegmentationModel, file: Path) -> Path:
    if file.suffix == ".onnx":
        from segshrink.export import export_onnx

        return export_onnx(model, file)
    from segshrink.export import export_openvino

    return export_openvino(model, file)


def count_file_parameters(file: Path) -> int | None:
    """Return how many weights an exported file holds; None where nothing here can read it.

    Batch normalisation is folded into convolutions by an export, so there may be fewer than the network has.
    """
    suffix = file.suffix.lower()
    try:
        if suffix == ".onnx":
            return _count_onnx(file)
        if suffix == ".xml":
            return _count_openvino(file)
    except ModuleNotFoundError:
        return None
    except Exception:  # a file that can't be read fails, with its reason, where it is run
        return None
    return None


def _count_onnx(file: Path) -> int:
    """Count the elements of number tensors; scales and zero points of a quantised file are no parameters."""
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    kinds = onnx.TensorProto
    weights = {kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE, kinds.INT8, kinds.UINT8, kinds.INT32}
    scales: set[str] = set()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scales.update(node.input[1:])
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type in weights and tensor.name not in scales
    )


def _count_openvino(file: Path) -> int:
    """Count the elements of constants that are numbers, not shapes or axes."""
    import openvino

    model: Any = openvino.Core().read_model(str(file))
    weights = ("f32", "f16", "bf16", "f64", "i8", "u8", "i4", "u4")
    return sum(
        math.prod(tuple(operation.get_output_shape(0)))
        for operation in model.get_ops()
        if operation.get_type_name() == "Constant" and operation.get_output_element_type(0).get_type_name() in weights
    )
