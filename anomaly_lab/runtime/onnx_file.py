"""Check an ONNX file before it is loaded: no tensor of it may lie in another file, whose path the file itself names.

The file is read as what it is, protocol buffers, without the package onnx: a message is a sequence of fields, each with
its number and kind; only fields that may contain tensors are entered.
"""

from __future__ import annotations

from collections.abc import Iterator

from anomaly_lab.types import UserError

_DEEPEST = 50  # messages inside of messages
_EXTERNAL = (13, 14)  # fields of a tensor: where its data lie, and that they lie elsewhere
_INSIDE: dict[str, dict[int, str]] = {  # for each message of onnx.proto, the fields that lead to tensors
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


def refuse_external(content: bytes, name: str) -> None:
    r"""Check that a model needs no other file.

    Args:
        content: of the file.
        name: of the file, for the message.

    Raises:
        UserError: it does, or it is no ONNX file.

    Examples:
        >>> refuse_external(b"", "empty.onnx")
        >>> tensor = b"\x6a\x00"  # field 13
        >>> graph = b"\x2a\x02" + tensor  # field 5, of 2 bytes
        >>> refuse_external(b"\x3a\x04" + graph, "a.onnx")
        Traceback (most recent call last):
        ...
        anomaly_lab.types.UserError: a.onnx keeps weights in other files, which is refused; export the run again
    """
    try:
        external = _leads_elsewhere(memoryview(content), "model", 0)
    except (ValueError, IndexError) as error:
        raise UserError(f"{name} is no ONNX file ({error}); export the run again") from error
    if external:
        raise UserError(f"{name} keeps weights in other files, which is refused; export the run again")


def _leads_elsewhere(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    inside = _INSIDE[kind]
    for number, value in _fields(message):
        if kind == "tensor" and number in _EXTERNAL and value is not None:
            return True
        if number in inside and value is not None and _leads_elsewhere(value, inside[number], depth + 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Yield number and content of each field; None for a number that is 0."""
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        start, wire = at, tag & 7
        if wire == 0:
            value, at = _number(message, at)
            yield tag >> 3, message[start:at] if value else None
            continue
        if wire == 2:
            length, start = _number(message, at)
            at = start + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("it has a field of an unknown kind")
        if at > len(message):
            raise ValueError("it is cut off")
        yield tag >> 3, message[start:at]


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """Read a whole number of seven bits a byte; returns it and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("it has a number that never ends")
