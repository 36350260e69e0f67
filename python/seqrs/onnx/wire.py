"""How many parts a file has, before anything is made of them.

An ONNX file is a protobuf message. Two bytes of it can stand for a message of their own, for which
a parser makes an object, so a small file can cost much. This walks over the file without making
anything, counts what it passes, and stops at a limit. Only where the parts of a message can be
messages again does it go inside; texts and the numbers of tensors are passed in one step.
"""

from __future__ import annotations

from ..errors import ModelFileError

__all__ = ["LARGEST_FILE", "check_size"]

#: Bytes of a file: protobuf's own limit.
LARGEST_FILE = 2**31 - 1
#: Fields of all messages together, the numbers of tensors and texts being one field each, and of a
#: single message: a recurrent model has some hundred nodes, and a node up to thirty.
LARGEST_COUNT = 200_000
LARGEST_MESSAGE = 50_000

#: For each message of onnx.proto the fields that are messages themselves, by their numbers.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "leaf", 14: "leaf", 20: "training", 25: "function", 26: "leaf"},
    "training": {1: "graph", 2: "graph", 3: "leaf", 4: "leaf"},
    "function": {7: "node", 9: "leaf", 11: "attribute", 12: "value", 14: "leaf"},
    "graph": {
        1: "node",
        5: "tensor",
        11: "value",
        12: "value",
        13: "value",
        14: "annotation",
        15: "sparse",
        16: "leaf",
    },
    "annotation": {2: "leaf"},
    "node": {5: "attribute", 9: "leaf", 10: "device"},
    "device": {2: "sharding"},
    "sharding": {3: "leaf", 4: "sharded"},
    "sharded": {2: "leaf"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        14: "type",
        15: "type",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {3: "leaf", 13: "leaf", 16: "leaf"},
    "value": {2: "type", 4: "leaf"},
    "type": {1: "tensor_type", 4: "element", 5: "map", 8: "tensor_type", 9: "element"},
    "element": {1: "type"},
    "map": {2: "type"},
    "tensor_type": {2: "shape"},
    "shape": {1: "leaf"},
    "leaf": {},
}


def check_size(data: bytes) -> None:
    """Passes over a file.

    Raises:
        ModelFileError: it is no protobuf message, ends too early, or has too many parts.
    """
    if not 0 < len(data) <= LARGEST_FILE:
        raise ModelFileError(f"file: expected 1..={LARGEST_FILE} bytes, got {len(data)}")
    count = 0
    waiting = [(0, len(data), _MESSAGES["model"])]
    while waiting:
        at, end, messages = waiting.pop()
        # Not even looked at one by one beyond what one message and all of them may have.
        last = min(count + LARGEST_MESSAGE, LARGEST_COUNT)
        while at < end:
            count += 1
            if count > last:
                raise ModelFileError(
                    f"file: expected at most {LARGEST_MESSAGE} fields in a message and "
                    f"{LARGEST_COUNT} in all, got more"
                )
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = _varint(data, at - 1, end)
            form = tag & 7
            if form == 0:
                _, at = _varint(data, at, end)
            elif form == 1:
                at += 8
            elif form == 2:
                size, at = _varint(data, at, end)
                inner = messages.get(tag >> 3)
                if inner is not None:
                    waiting.append((at, min(at + size, end), _MESSAGES[inner]))
                at += size
            elif form == 5:
                at += 4
            else:
                raise ModelFileError(f"file: expected an ONNX model, got wire type {form}")
            if at > end:
                raise ModelFileError("file: expected an ONNX model, got one that ends too early")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number in groups of seven bits, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ModelFileError("file: expected an ONNX model, got one that ends too early")
