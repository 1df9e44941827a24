"""Cutting out of an ONNX file what leads to one of its outputs, without the package onnx.

ONNX Runtime 1.31 executes every node of a graph whatever is asked for, also with ``only_execute_path_to_fetches``. A
file is a protocol buffer (https://protobuf.dev/programming-guides/encoding): a sequence of fields, each a number, a
kind, and for the kind used here a length and that many bytes. The numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_GRAPH = 7  # of a model
_NODE, _OUTPUT = 1, 12  # of a graph
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_NAME = 1  # of a graph's output
_ATTRIBUTE_GRAPHS = (6, 11)
_BYTES = 2  # the kind of field that has a length
_FIXED = {1: 8, 5: 4}  # length by kind


class _Field(NamedTuple):
    number: int
    whole: memoryview
    content: memoryview


def output_names(model: bytes) -> list[str]:
    """Return the names of the outputs of an ONNX file; none where it isn't one."""
    try:
        graph = next(field.content for field in _fields(memoryview(model)) if field.number == _GRAPH)
        return [_text(field.content, _NAME)[0] for field in _fields(graph) if field.number == _OUTPUT]
    except (ValueError, IndexError, StopIteration):
        return []


def part(model: bytes, output: str) -> bytes:
    """Return an ONNX file that gives ``output`` alone and holds the nodes that lead to it.

    A file that can't be read, lacks the output or has graphs inside of nodes is returned as it is.
    """
    try:
        fields = list(_fields(memoryview(model)))
        kept = [_cut(field, output) if field.number == _GRAPH else field.whole for field in fields]
    except (ValueError, IndexError):
        return model
    return b"".join(kept)


def _cut(graph: _Field, output: str) -> bytes:
    """Return the field of a graph with what leads to ``output`` alone."""
    fields = list(_fields(graph.content))
    dropped: set[int] = {
        place
        for place, field in enumerate(fields)
        if field.number == _OUTPUT and output not in _text(field.content, _NAME)
    }
    if len(dropped) == sum(field.number == _OUTPUT for field in fields):
        raise ValueError(f"no output '{output}'")
    needed = {output}
    for place in reversed(range(len(fields))):  # nodes stand after those that they depend on
        if fields[place].number != _NODE:
            continue
        node = fields[place].content
        _refuse_inner_graphs(node)
        if needed.isdisjoint(_text(node, _NODE_OUTPUT)):
            dropped.add(place)
        else:
            needed.update(_text(node, _NODE_INPUT))
    content = b"".join(field.whole for place, field in enumerate(fields) if place not in dropped)
    return bytes([_GRAPH << 3 | _BYTES]) + _varint(len(content)) + content


def _refuse_inner_graphs(node: memoryview) -> None:
    for field in _fields(node):
        if field.number == _NODE_ATTRIBUTE and any(
            inner.number in _ATTRIBUTE_GRAPHS for inner in _fields(field.content)
        ):
            raise ValueError("a graph inside of a node may use any value around it")


def _text(message: memoryview, number: int) -> list[str]:
    return [str(field.content, "utf-8") for field in _fields(message) if field.number == number]


def _fields(message: memoryview) -> Iterator[_Field]:
    place = 0
    while place < len(message):
        start = place
        key, place = _read_varint(message, place)
        kind = key & 7
        if kind == _BYTES:
            length, place = _read_varint(message, place)
        elif kind == 0:
            length = _read_varint(message, place)[1] - place
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError(f"unknown kind of field {kind}")
        if place + length > len(message):
            raise ValueError("a field is cut off")
        yield _Field(key >> 3, message[start : place + length], message[place : place + length])
        place += length


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number of more than ten bytes")


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
