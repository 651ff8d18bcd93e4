"""A model that names other files is refused, wherever in it they are named; one that is cut off, too."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from anomaly_lab.runtime.onnx_file import refuse_external
from anomaly_lab.types import UserError


def elsewhere() -> TensorProto:
    """A tensor whose data lie in a file."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], np.zeros(2, np.float32).tobytes(), raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def model(nodes: list[onnx.NodeProto], weights: list[TensorProto] | None = None) -> onnx.ModelProto:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    return helper.make_model(helper.make_graph(nodes, "g", [], [y], weights or []))


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=tensor)


INSIDE = helper.make_tensor("w", TensorProto.FLOAT, [2], [0.0, 1.0])


def nested(tensor: TensorProto) -> onnx.ModelProto:
    branch = helper.make_graph([constant(tensor)], "b", [], [helper.make_tensor_value_info("y", 1, [2])])
    return model([helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)])


def in_function(tensor: TensorProto) -> onnx.ModelProto:
    whole = model([constant(INSIDE)])
    opset = [helper.make_opsetid("", 18)]
    whole.functions.append(helper.make_function("d", "f", [], ["y"], [constant(tensor)], opset))
    return whole


def sparse(tensor: TensorProto) -> onnx.ModelProto:
    whole = model([constant(INSIDE)])
    whole.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, helper.make_tensor("i", 7, [1], [0]), [2]))
    return whole


PLACES = {
    "initializer": lambda tensor: model([], [INSIDE, tensor]),
    "attribute": lambda tensor: model([constant(tensor)]),
    "branch": nested,
    "function": in_function,
    "sparse": sparse,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_other_files_are_found_wherever_they_are_named(place) -> None:
    refuse_external(place(INSIDE).SerializeToString(), "a.onnx")
    with pytest.raises(UserError, match=r"a\.onnx keeps weights in other files"):
        refuse_external(place(elsewhere()).SerializeToString(), "a.onnx")


def test_an_export_of_ours_passes(export: Path) -> None:
    refuse_external((export / "model.onnx").read_bytes(), "model.onnx")


@pytest.mark.parametrize("content", [b"\x3a", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 30, b"\x3b\x00", b"\x3a\x05\x2a"])
def test_what_is_cut_off_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match="is no ONNX file"):
        refuse_external(content, "a.onnx")


def test_depth_is_bounded() -> None:
    content = b""
    for _ in range(100):
        for tag in (0x32, 0x2A, 0x0A):  # attribute.g, node.attribute, graph.node
            length, size = len(content), b""
            while length > 127:
                size, length = size + bytes([length & 127 | 128]), length >> 7
            content = bytes([tag]) + size + bytes([length]) + content
    with pytest.raises(UserError, match="nested too deeply"):
        refuse_external(b"\x3a" + bytes([len(content) & 127 | 128, len(content) >> 7]) + content, "a.onnx")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused_in_one_line(content: bytes) -> None:
    refusal = ""
    try:
        refuse_external(content, "a.onnx")
    except UserError as error:
        refusal = str(error)
    assert "\n" not in refusal
