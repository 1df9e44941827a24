"""Cutting out of an ONNX file what leads to one of its outputs.

ONNX Runtime 1.31 executes every node of a graph whatever is asked for, also with ``only_execute_path_to_fetches``. The
package onnx isn't needed for prediction, but protobuf is there, which ONNX Runtime needs. The fields that matter here
are declared, with the numbers of onnx.proto; protobuf keeps all others as they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

# Message → field → its number, and the message that it holds, or bytes.
_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph")},
    "Graph": {"node": (1, "Node"), "output": (12, "Value")},
    "Value": {"name": (1, "")},
    "Node": {"input": (1, ""), "output": (2, ""), "attribute": (5, "Attribute")},
    "Attribute": {"graph": (6, ""), "graphs": (11, "")},
}


def output_names(model: bytes) -> list[str]:
    """Return the names of the outputs of an ONNX file; none where it isn't one."""
    try:
        return [value.name[0].decode() for value in _parsed(model).graph[0].output]
    except (ValueError, IndexError):
        return []


def part(model: bytes, output: str) -> bytes:
    """Return an ONNX file that gives ``output`` alone and holds the nodes that lead to it.

    A file that can't be read, lacks the output or has graphs inside of nodes is returned as it is.
    """
    try:
        parsed = _parsed(model)
    except ValueError:
        return model
    needed = {output.encode()}
    if len(parsed.graph) != 1 or all(needed.isdisjoint(value.name) for value in parsed.graph[0].output):
        return model
    graph = parsed.graph[0]
    for place in reversed(range(len(graph.output))):
        if needed.isdisjoint(graph.output[place].name):
            del graph.output[place]
    for place in reversed(range(len(graph.node))):  # nodes stand after those that they depend on
        node = graph.node[place]
        if any(attribute.graph or attribute.graphs for attribute in node.attribute):
            return model  # a graph inside of a node may use any value around it
        if needed.isdisjoint(node.output):
            del graph.node[place]
        else:
            needed.update(node.input)
    content: bytes = parsed.SerializeToString()
    return content


def _parsed(model: bytes) -> Any:
    """Read an ONNX file.

    Raises:
        ValueError: It isn't one.
    """
    from google.protobuf.message import DecodeError

    try:
        return _model_class().FromString(model)
    except DecodeError as error:
        raise ValueError(str(error)) from error


@cache
def _model_class() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="onnx_parts.proto", package="segshrink")
    for message, fields in _FIELDS.items():
        declared = file.message_type.add(name=message)
        for name, (number, inner) in fields.items():
            field = declared.field.add(name=name, number=number, label=kinds.LABEL_REPEATED)
            field.type = kinds.TYPE_MESSAGE if inner else kinds.TYPE_BYTES
            if inner:
                field.type_name = f".segshrink.{inner}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("segshrink.Model"))
