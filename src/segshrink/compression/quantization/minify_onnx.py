"""Making an ONNX file small: short names, no repeated constants, nothing that only people read."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, product
from string import ascii_letters
from typing import Any

import onnx
from onnx import numpy_helper


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same computation in fewer bytes.

    Inputs, outputs and metadata keep their names. All other values get names of one to three letters; nodes lose
    theirs; constants that equal each other become one; zero points of constants go where they are 0; types and sizes
    of inner values, texts, and operator sets that no node uses go.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    _leave_out_zeros(graph)
    _merge_constants(graph)
    _sort(graph)
    del graph.value_info[:]
    short = _ShortNames(value.name for value in (*graph.input, *graph.output))
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [short[name] for name in values]
        node.name = ""
    for item in (small, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
    graph.name = "g"
    used = {node.domain for node in graph.node}
    kept = [entry for entry in small.opset_import if entry.domain in used]
    del small.opset_import[:]
    small.opset_import.extend(kept)
    return small


class _ShortNames(dict[str, str]):
    """Gives every name that is asked for a short one of its own; those in ``kept``, and none, stay."""

    def __init__(self, kept: Iterable[str]) -> None:
        super().__init__({name: name for name in kept} | {"": ""})
        self._letters = ("".join(letters) for length in count(1) for letters in product(ascii_letters, repeat=length))

    def __missing__(self, name: str) -> str:
        self[name] = next(letters for letters in self._letters if letters not in self)
        return self[name]


def _leave_out_zeros(graph: Any) -> None:
    """Drop the zero points of 8-bit weights and 32-bit biases that are all 0, which they are taken for when absent."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3 or node.input[0] not in constants:
            continue
        if node.input[2] in constants and not numpy_helper.to_array(constants[node.input[2]]).any():
            del node.input[2]


def _merge_constants(graph: Any) -> None:
    """Keep one of equal constants, and none that is not used."""
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    replaced: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        if tensor.name not in used:
            continue
        array = numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), array.tobytes())
        replaced[tensor.name] = first.setdefault(key, tensor.name)
        if replaced[tensor.name] == tensor.name:
            kept.append(numpy_helper.from_array(array, tensor.name))
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _sort(graph: Any) -> None:
    """Put every node behind those that it takes values from, as the format wants it; else the order stays."""
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    waiting = list(graph.node)
    ordered = []
    while waiting:
        later = []
        for node in waiting:
            if known.issuperset(node.input):
                known.update(node.output)
                ordered.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ValueError(f"the graph has a circle, or lacks what {later[0].op_type} takes")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)
