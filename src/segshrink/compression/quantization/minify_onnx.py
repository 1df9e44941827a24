"""Making an ONNX file small: short names, no repeated constants, nothing that only people read."""

from __future__ import annotations

from collections import defaultdict
from itertools import count, product
from string import ascii_letters
from typing import Any

import onnx
from onnx import numpy_helper


def minify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same computation in fewer bytes.

    Inputs, outputs and metadata keep their names. All other values get names of one to three letters; nodes lose
    theirs; constants that equal each other become one; zero points of constants go where they are 0; types and sizes
    of inner values, texts, and operator sets that no node uses go. A model with branches or loops, whose graphs use the
    values around them, stays as it is.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return small
    _drop_zero_points(graph)
    _merge_constants(graph)
    ONNXModel(small).topological_sort()  # as the format wants it; the quantizer appends its nodes at the end
    del graph.value_info[:]
    kept = {value.name: value.name for value in (*graph.input, *graph.output)} | {"": ""}
    letters = ("".join(letters) for length in count(1) for letters in product(ascii_letters, repeat=length))
    unused = (name for name in letters if name not in kept)
    short = defaultdict(lambda: next(unused), kept)
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [short[name] for name in values]
        node.name = ""
    for item in (small, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
    graph.name = "g"
    domains = {node.domain for node in graph.node}
    operator_sets = [entry for entry in small.opset_import if entry.domain in domains]
    del small.opset_import[:]
    small.opset_import.extend(operator_sets)
    return small


def _drop_zero_points(graph: Any) -> None:
    """Drop the zero points of 8-bit weights and 32-bit biases that are all 0: absent ones are taken for 0."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3 or node.input[0] not in constants:
            continue
        if node.input[2] in constants and not numpy_helper.to_array(constants[node.input[2]]).any():
            del node.input[2]


def _merge_constants(graph: Any) -> None:
    """Keep one of equal constants, and none that is not used."""
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    first: dict[bytes, str] = {}
    replaced: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        if tensor.name in used:
            array = numpy_helper.to_array(tensor)
            replaced[tensor.name] = first.setdefault(numpy_helper.from_array(array).SerializeToString(), tensor.name)
            if replaced[tensor.name] == tensor.name:
                kept.append(numpy_helper.from_array(array, tensor.name))
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]
    del graph.initializer[:]
    graph.initializer.extend(kept)
