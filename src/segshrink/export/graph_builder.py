"""Nodes and constants that are added to ONNX graphs by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class GraphBuilder:
    """Appends nodes and constants to a graph.

    Args:
        graph: An ``onnx.GraphProto``; changed in place.
        prefix: Begins the names of all that is appended.
    """

    def __init__(self, graph: Any, prefix: str) -> None:
        self._graph, self._prefix = graph, prefix

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node; return the name of its output, which is new unless one is given."""
        from onnx import helper

        name = f"{self._prefix}{operator}{len(self._graph.node)}"
        self._graph.node.append(helper.make_node(operator, list(inputs), [output or name], name=name, **attributes))
        return output or name

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        """Append a constant; return its name."""
        from onnx import numpy_helper

        name = f"{self._prefix}constant{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name
