"""The layers of a Keras model, one after the other, where the model is a plain chain of them.

A functional model says in its `get_config` which tensors each of its layers is called with. Beside
the chain it may hold the operations by which Keras makes a mask of its input (NotEqual, Any).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .keras_layers import MaskOfInput

__all__ = ["Chain", "functional_chain"]


class Chain(NamedTuple):
    """What the configuration of a functional model says."""

    #: Its layers' names, the input's left out.
    names: list[str]
    #: The masks that layers are called with.
    masks: list[MaskOfInput]


def functional_chain(config: dict[str, Any]) -> Chain:
    """Follows a functional model from its output to its input.

    Args:
        config: what its `get_config` gives.

    Raises:
        ValueError: it is no plain chain, or calls a layer with what a chain has no place for; names
            the layer.
    """
    nodes = {node["name"]: node for node in config["layers"]}
    first = _end(config["input_layers"], "input")
    names: list[str] = []
    masks: list[MaskOfInput] = []
    operations: set[str] = set()
    name = _end(config["output_layers"], "output")
    while name != first:
        names.append(name)
        tensors, words = _call(nodes[name])
        if len(tensors) != 1:
            raise ValueError(f"{name}: expected one input, got {len(tensors)}")
        for word, value in words.items():
            if word == "mask" and _is_tensor(value):
                masks.append(_mask(nodes, value, first, operations))
            elif value is not None and value is not False:
                raise ValueError(f"{name}: expected to be called with its input alone, got {word}")
        name = _source(name, tensors[0])
    left = sorted(set(nodes) - {*names, *operations, first})
    if left:
        raise ValueError(f"model: expected a plain chain of layers, got {', '.join(left)} besides")
    return Chain(names[::-1], masks)


def _end(found: Any, what: str) -> str:
    """The name of the model's one input or output."""
    while isinstance(found, (list, tuple)) and len(found) == 1:
        (found,) = found
    if not (isinstance(found, (list, tuple)) and isinstance(found[0], str)):
        raise ValueError(f"model: expected one {what}, got {len(found)}")
    name, _, number = found
    if number != 0:
        raise ValueError(f"{name}: expected its output as the model's, got one of its states")
    return str(name)


def _call(node: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the one call of a layer."""
    calls = node["inbound_nodes"]
    if len(calls) != 1:
        raise ValueError(f"{node['name']}: expected a layer that is used once, got {len(calls)}")
    return list(calls[0]["args"]), dict(calls[0]["kwargs"])


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _source(name: str, tensor: Any) -> str:
    """The name of the layer whose output a layer is called with."""
    if not _is_tensor(tensor):
        raise ValueError(f"{name}: expected one tensor as its input, got {type(tensor).__name__}")
    source, _, number = tensor["config"]["keras_history"]
    if number != 0:
        raise ValueError(f"{name}: expected the output of {source} as its input, got a state of it")
    return str(source)


def _mask(nodes: dict[str, Any], tensor: Any, first: str, operations: set[str]) -> MaskOfInput:
    """The mask that a tensor is, if Keras makes it of the model's input; notes how it is made."""
    name = tensor["config"]["keras_history"][0]
    node, ids = nodes[name], True
    operations.add(name)
    if node["class_name"] == "Any":
        name = _source(name, _call(node)[0][0])
        node, ids = nodes[name], False
        operations.add(name)
    if node["class_name"] == "NotEqual":
        x, value = _call(node)[0]
        if _source(name, x) == first and isinstance(value, (int, float)):
            return MaskOfInput(value, ids)
    raise ValueError(f"{name}: expected a mask that Embedding or Masking makes, got another")
