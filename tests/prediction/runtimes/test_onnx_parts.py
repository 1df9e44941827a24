from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from segshrink.prediction.runtimes.onnx_parts import output_names, part


def two_answers(*, inner=False):
    shape = ["n"]
    nodes = [
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("Abs", ["minus"], ["size"]),
        helper.make_node("Exp", ["minus"], ["grown"]),
    ]
    if inner:
        body = helper.make_graph(
            [helper.make_node("Identity", ["grown"], ["out"])],
            "body",
            [],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        )
        nodes.append(helper.make_node("If", ["yes"], ["chosen"], then_branch=body, else_branch=body))
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("size", "grown")],
        [helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"key": "välue"})
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("output", "function", "operators"),
    [("size", np.abs, ["Neg", "Abs"]), ("grown", lambda x: np.exp(-x), ["Neg", "Exp"])],
)
def test_a_part_holds_what_leads_to_its_output_and_the_metadata(output, function, operators):
    whole = two_answers()
    cut = onnx.load_from_string(part(whole, output))
    onnx.checker.check_model(cut)
    assert [node.op_type for node in cut.graph.node] == operators
    assert cut.metadata_props[0].value == "välue"
    session = onnxruntime.InferenceSession(cut.SerializeToString(), providers=["CPUExecutionProvider"])
    values = np.array([-1.0, 2.0], np.float32)
    np.testing.assert_allclose(session.run(None, {"x": values})[0], function(values), rtol=1e-6)
    assert output_names(whole) == ["size", "grown"]
    assert output_names(part(whole, output)) == [output]


def test_what_cannot_be_cut_safely_stays_whole():
    assert part(two_answers(inner=True), "size") == two_answers(inner=True)
    assert part(two_answers(), "absent") == two_answers()


@settings(max_examples=200)
@given(st.data())
def test_damaged_files_end_quickly(data):
    whole = two_answers()
    start = data.draw(st.integers(0, len(whole)))
    damaged = whole[:start] + data.draw(st.binary(max_size=20)) + whole[start + data.draw(st.integers(0, 20)) :]
    assert isinstance(part(damaged, "size"), bytes)
    assert isinstance(output_names(damaged), list)
