"""Modules and weights of PyTorch in, and layers and models back out.

Names, shapes and the order of gates are the same on both sides, so that weights are copied bit for
bit. What differs:

- A GRU of PyTorch is always the one with `reset_after=True`; the other form is another function and
  is refused by `to_torch`.
- PyTorch's recurrent modules are time-first unless told otherwise, layers are batch-first unless
  told otherwise: `batch_first` goes with the module.
- In an `nn.Sequential` a recurrent module hands on the tuple (output, state), which no module after
  it takes. Here it hands on its output, and its state goes into the state of the model. Back in
  PyTorch `seqrs.torch.Sequential` does the same.
- A cell (`nn.LSTMCell`) becomes a layer whose `step` is the cell; its parameters are then named
  `weight_ih_l0` and so on.
- Whether a parameter is trained (`requires_grad`) is not carried: here all are. What two modules
  share becomes a copy for each layer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ModelFileError, ShapeError
from ..layers import (
    Activation,
    Dropout,
    Embedding,
    Layer,
    LayerNorm,
    Linear,
    checked_mapping,
    checked_path,
)
from ..models import Sequential
from ..options import dtype_name, flag, shown, text
from ..recurrent import GRU, LSTM, RNN, Recurrent
from .safetensors import SafetensorsFile
from .verify import require_equal

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Shapes = dict[str, tuple[int, ...]]

__all__ = ["from_torch", "from_torch_state_dict", "to_torch"]

#: Gates of each kind, G.
_GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
_KINDS = (
    *_GATES,
    *(f"{kind}Cell" for kind in _GATES),
    "Embedding",
    "Linear",
    "LayerNorm",
)
#: As parameters of a recurrent module are named.
_PARAMETER = re.compile(
    r"(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)_l(0|[1-9]\d{0,5})(_reverse)?"
)
#: Ends of the names of files that are pickles, which can run code.
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def _torch() -> Any:
    """The package, which only those have who asked for it."""
    try:
        import torch
    except ModuleNotFoundError as error:
        message = "torch: expected the package (pip install 'seqrs[torch]'), got none"
        raise ModuleNotFoundError(message, name="torch") from error
    return torch


# --- from arrays


def from_torch_state_dict(
    mapping: Mapping[str, Any] | str | os.PathLike[str],
    kind: str,
    *,
    prefix: str = "",
    nonlinearity: str = "tanh",
    batch_first: bool = True,
    dropout: float = 0.0,
    padding_idx: int | None = None,
    eps: float = 1e-5,
    dtype: npt.DTypeLike | None = None,
) -> Layer:
    """A layer from the weights of one module of PyTorch, without PyTorch.

    Sizes, number of layers, directions, biases and the projection are read from names and shapes.

    Args:
        mapping: arrays or tensors by name, as `module.state_dict()` has them, or the path of a
            .safetensors file.
        kind: "RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "Embedding", "Linear" or
            "LayerNorm", in capitals or not. A GRU gets `reset_after=True`, as PyTorch's is.
        prefix: what the names of this module begin with, such as "encoder.lstm."; others are left
            out. For an `nn.Sequential` ask for each module by its prefix "0.", "1." and so on.
        nonlinearity: of an RNN, "tanh" or "relu", which weights do not tell.
        batch_first: of a recurrent layer: whether x is to be (B, T, I), which does not matter to
            the weights. The default is that of layers, not that of PyTorch.
        dropout: of a recurrent layer.
        padding_idx: of an Embedding.
        eps: of a LayerNorm.
        dtype: "float32" or "float64", to which the arrays are rounded; None for that of the arrays,
            float32 for float16 and bfloat16.

    Returns:
        The layer, its parameters equal to the arrays bit for bit (unless `dtype` rounds them).

    Raises:
        ShapeError: a name or a shape does not fit the kind; says which.
        DTypeError: an array does not hold float16, bfloat16, float32 or float64, is not on the CPU,
            or two are of different dtypes.
        ModelFileError: the file is not a safetensors file. Pickles (.pt, .pth, .bin) can run code
            and are never opened; the message says how to convert one.
        ValueError: the kind or an option is none.

    Source: the parameters of `torch.nn.LSTM` and its kin in PyTorch's documentation.
    """
    name = _kind(kind)
    arrays = _arrays(mapping, text("prefix", prefix))
    if name.endswith("Cell"):
        name = name.removesuffix("Cell")
        arrays = _of_cell(arrays, f"{name}Cell")
    own = _dtype(arrays)
    as_dtype = own if dtype is None else dtype_name(dtype)
    if name in _GATES:
        options = _derived(arrays, name)
        _require_shapes(arrays, _recurrent_shapes(name, options), f"nn.{name}")
        options |= {"batch_first": batch_first, "dropout": dropout, "dtype": as_dtype}
        if name == "RNN":
            return RNN._with_parameters(arrays, **options, nonlinearity=nonlinearity)
        if name == "LSTM":
            return LSTM._with_parameters(arrays, **options)
        return GRU._with_parameters(arrays, **options, reset_after=True)
    if name == "Embedding":
        rows, columns = _matrix(arrays, "weight", name)
        _require_shapes(arrays, {"weight": (rows, columns)}, "nn.Embedding")
        return Embedding._with_parameters(arrays, rows, columns, padding_idx, dtype=as_dtype)
    if name == "Linear":
        rows, columns = _matrix(arrays, "weight", name)
        shapes: Shapes = {"weight": (rows, columns)}
        if "bias" in arrays:
            shapes["bias"] = (rows,)
        _require_shapes(arrays, shapes, "nn.Linear")
        return Linear._with_parameters(arrays, columns, rows, "bias" in arrays, dtype=as_dtype)
    size = arrays["weight"].size if "weight" in arrays else 1
    _require_shapes(arrays, {"weight": (size,), "bias": (size,)}, "nn.LayerNorm")
    return LayerNorm._with_parameters(arrays, size, eps=eps, dtype=as_dtype)


def _kind(kind: object) -> str:
    word = text("kind", kind)
    for name in _KINDS:
        if word.lower().replace("_", "") == name.lower():
            return name
    expected = " or ".join(repr(name) for name in _KINDS)
    raise ValueError(f"kind: expected {expected}, got {shown(kind)}")


def _arrays(mapping: Any, prefix: str) -> dict[str, Array]:
    """The arrays whose names begin with the prefix, without it."""
    found: Mapping[str, Any]
    if isinstance(mapping, (str, os.PathLike)):
        found = _file(checked_path(mapping))
    else:
        found = checked_mapping(mapping)
    arrays = {
        name[len(prefix) :]: _array(name, found[name]) for name in found if name.startswith(prefix)
    }
    if not arrays:
        raise ShapeError(
            f"state_dict: expected names that begin with {prefix!r}, got {_listed(found)}"
        )
    return arrays


def _file(path: str) -> SafetensorsFile:
    if path.lower().endswith(_PICKLES):
        new = os.path.splitext(os.path.basename(path))[0] + ".safetensors"
        raise ModelFileError(
            f"{path}: expected a .safetensors file, got the name of a pickle, which can run code "
            "when it is opened, so that it never is; where you trust it, convert it with PyTorch: "
            f"safetensors.torch.save_file(torch.load({os.path.basename(path)!r}, "
            f"map_location='cpu', weights_only=True), {new!r})"
        )
    return SafetensorsFile(path)


def _array(name: str, value: Any) -> Array:
    """An array of float16, float32 or float64 from an array or a tensor, bfloat16 as float32."""
    # A tensor, of whichever PyTorch is there: it is not imported for this.
    if hasattr(value, "detach") and hasattr(value, "device"):
        if str(value.device) != "cpu":
            raise DTypeError(f"{name}: expected a tensor on the CPU, got one on {value.device}")
        value = value.detach()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
        try:
            value = value.numpy()
        except (TypeError, RuntimeError) as error:
            raise DTypeError(
                f"{name}: expected real numbers, got {value.dtype}: {error}"
            ) from error
    try:
        array: Array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{name}: expected an array, got {shown(value)}") from error
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        expected = "float16, bfloat16, float32 or float64"
        raise DTypeError(f"{name}: expected {expected}, got {array.dtype}")
    return array


def _dtype(arrays: dict[str, Array]) -> str:
    """The dtype that all of them have, float32 for those that are narrower."""
    found: dict[str, str] = {}
    for name, array in arrays.items():
        found.setdefault("float64" if array.dtype.itemsize == 8 else "float32", name)
    if len(found) > 1:
        (dtype, name), (other_dtype, other) = found.items()
        raise DTypeError(
            f"state_dict: expected one dtype, got {dtype} for {name!r} and {other_dtype} for "
            f"{other!r}"
        )
    return next(iter(found))


def _of_cell(arrays: dict[str, Array], kind: str) -> dict[str, Array]:
    """The parameters of a cell under the names of a layer."""
    unknown = [n for n in arrays if n not in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    if unknown:
        raise ShapeError(
            f"state_dict: expected weight_ih, weight_hh, bias_ih and bias_hh of an nn.{kind}, got "
            f"{_listed(unknown)}"
        )
    return {f"{name}_l0": array for name, array in arrays.items()}


def _matrix(arrays: dict[str, Array], name: str, kind: str) -> tuple[int, int]:
    """The shape of an array that a kind cannot be without."""
    if name not in arrays:
        raise ShapeError(
            f"state_dict: expected {name!r} of an nn.{kind}, got {_listed(arrays)}; "
            "prefix=... picks the names of one module"
        )
    shape = arrays[name].shape
    if len(shape) != 2:
        raise ShapeError(f"{name}: expected two sizes, got shape {shape}")
    return shape


def _derived(arrays: dict[str, Array], kind: str) -> dict[str, Any]:
    """The options of a recurrent module that its names and shapes tell."""
    parsed = {name: _PARAMETER.fullmatch(name) for name in arrays}
    unknown = [name for name, match in parsed.items() if match is None]
    if unknown:
        raise ShapeError(
            f"state_dict: expected the parameters of an nn.{kind} alone, got also "
            f"{_listed(unknown)}; prefix=... picks the names of one module"
        )
    layers = {int(match[2]) for match in parsed.values() if match}
    inputs = _matrix(arrays, "weight_ih_l0", kind)
    recurrent = _matrix(arrays, "weight_hh_l0", kind)
    projected = _matrix(arrays, "weight_hr_l0", kind) if "weight_hr_l0" in arrays else None
    hidden = projected[1] if projected else recurrent[1]
    if inputs[0] != _GATES[kind] * hidden:
        fitting = [other for other, gates in _GATES.items() if inputs[0] == gates * hidden]
        raise ShapeError(
            f"weight_ih_l0: expected {_GATES[kind]} * {hidden} rows, as an nn.{kind} of {hidden} "
            f"units has, got {inputs[0]}" + (f", as an nn.{fitting[0]} has" if fitting else "")
        )
    options = {
        "input_size": inputs[1],
        "hidden_size": hidden,
        # A layer that is left out is told by its names, which are missing then.
        "num_layers": len(layers),
        "bias": any(name.startswith("bias") for name in arrays),
        "bidirectional": any(name.endswith("_reverse") for name in arrays),
    }
    if projected and kind == "LSTM":
        options["proj_size"] = projected[0]
    return options


def _recurrent_shapes(kind: str, options: dict[str, Any]) -> Shapes:
    """Every parameter of a recurrent module, and its shape."""
    units, directions = options["hidden_size"], 2 if options["bidirectional"] else 1
    projected = options.get("proj_size", 0)
    given, rows = projected or units, _GATES[kind] * units
    shapes: Shapes = {}
    for k in range(options["num_layers"]):
        inputs = options["input_size"] if k == 0 else given * directions
        for suffix in ("", "_reverse")[:directions]:
            shapes[f"weight_ih_l{k}{suffix}"] = (rows, inputs)
            shapes[f"weight_hh_l{k}{suffix}"] = (rows, given)
            if options["bias"]:
                shapes[f"bias_ih_l{k}{suffix}"] = (rows,)
                shapes[f"bias_hh_l{k}{suffix}"] = (rows,)
            if projected:
                shapes[f"weight_hr_l{k}{suffix}"] = (projected, units)
    return shapes


def _require_shapes(arrays: dict[str, Array], shapes: Shapes, what: str) -> None:
    """Before a layer is built, which may be larger than the arrays are.

    Raises:
        ShapeError: the arrays are not those of the names and shapes; says which.
    """
    missing = [name for name in shapes if name not in arrays]
    unexpected = [name for name in arrays if name not in shapes]
    if missing or unexpected:
        got = [f"none named {_listed(missing)}"] if missing else []
        got += [f"also {_listed(unexpected)}"] if unexpected else []
        raise ShapeError(
            f"state_dict: expected the parameters of an {what}, got {' and '.join(got)}; "
            "prefix=... picks the names of one module"
        )
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ShapeError(f"{name}: expected shape {shape}, got {arrays[name].shape}")


def _listed(names: Any) -> str:
    """The first names."""
    words = [shown(name) for name in names]
    return ", ".join(words[:6] + ([f"{len(words) - 6} more"] if len(words) > 6 else [])) or "none"


# --- from modules


def from_torch(module: Any, *, verify: bool = True) -> Layer | Sequential:
    """A layer or model that computes what a module of PyTorch does (in eval mode).

    Takes `nn.RNN`, `nn.LSTM`, `nn.GRU`, their cells, `nn.Embedding`, `nn.Linear`, `nn.LayerNorm`,
    `nn.Dropout`, `nn.Tanh`, `nn.ReLU`, `nn.Sigmoid`, `nn.Softmax(dim=-1)`, the modules of
    `seqrs.torch`, and `nn.Sequential` of these, one inside another is written out. What differs
    between the two sides stands at the top of `seqrs.interop.pytorch`.

    Args:
        module: with parameters in float32 or float64 on the CPU.
        verify: whether to run both on random input, also with lengths and with an initial state,
            and compare.

    Returns:
        The layer, or a Sequential for an `nn.Sequential`; its parameters are copies, equal bit for
        bit.

    Raises:
        ModuleNotFoundError: PyTorch is not installed.
        TypeError: a module is of another type; a subclass may compute something else.
        ValueError: a module has an option that cannot be carried: `max_norm`, `sparse` or
            `scale_grad_by_freq` of an Embedding, hooks, dropout of 1, another `dim`.
        ShapeError: it has other parameters than a module of its type, as pruned ones have.
        DTypeError: a parameter is not float32 or float64, or not on the CPU.
        VerificationError: the outputs differ; names the largest difference.
    """
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {shown(module)}")
    verify = flag("verify", verify)
    if _is_sequential(torch, module):
        found = _written_out(torch, module, "")
        if not found:
            raise ValueError("module: expected a module in the nn.Sequential, got none")
        layers = [_layer(torch, each, name) for name, each in found]
        first: dict[bool, str] = {}
        for (name, each), layer in zip(found, layers, strict=True):
            if isinstance(layer, Recurrent):
                if type(each).__name__.endswith("Cell"):
                    raise TypeError(f"{name}: expected no cell in an nn.Sequential, got {each}")
                first.setdefault(layer.batch_first, name)
        if len(first) > 1:
            raise ValueError(
                f"batch_first: expected the same for all modules, got True of {first[True]!r} and "
                f"False of {first[False]!r}"
            )
        model = Sequential(layers)
        if verify:
            _verify_model(torch, [each for _, each in found], model)
        return model
    layer = _layer(torch, module, "module")
    if verify:
        if type(module).__name__.endswith("Cell"):
            _verify_cell(torch, module, layer)
        else:
            _verify_model(torch, [module], layer)
    return layer


def _is_sequential(torch: Any, module: Any) -> bool:
    if type(module) is torch.nn.Sequential:
        return True
    from .. import torch as drop_ins

    return type(module) is drop_ins.Sequential


def _written_out(torch: Any, module: Any, prefix: str) -> list[tuple[str, Any]]:
    """The modules of an nn.Sequential by name, those of one inside it in its place."""
    _refuse_hooks(module, prefix or "module")
    found = []
    # `named_children` leaves out a module that is there a second time.
    for name, each in module._modules.items():
        if _is_sequential(torch, each):
            found += _written_out(torch, each, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", each))
    return found


def _refuse_hooks(module: Any, where: str) -> None:
    if module._forward_hooks or module._forward_pre_hooks:
        raise ValueError(
            f"{where}: expected a module without forward hooks, which cannot be carried, got "
            f"{type(module).__name__} with some"
        )


def _layer(torch: Any, module: Any, where: str) -> Layer:
    """The layer of one module, which stands at `where`."""
    from .. import torch as drop_ins

    nn = torch.nn
    _refuse_hooks(module, where)
    cls = type(module)
    for name in _GATES:
        if cls in (getattr(nn, name), getattr(drop_ins, name), getattr(nn, f"{name}Cell")):
            return _recurrent(module, name, where)
    if cls is nn.Embedding:
        for option in ("max_norm", "sparse", "scale_grad_by_freq"):
            value = getattr(module, option)
            if value not in (None, False):
                raise ValueError(
                    f"{where}: {option}: expected {None if option == 'max_norm' else False} "
                    f"(it cannot be carried), got {value!r}"
                )
        return Embedding._with_parameters(
            _parameters(module, where),
            module.num_embeddings,
            module.embedding_dim,
            module.padding_idx,
            dtype=_dtype_of(module, where),
        )
    if cls is nn.Linear:
        return Linear._with_parameters(
            _parameters(module, where),
            module.in_features,
            module.out_features,
            module.bias is not None,
            dtype=_dtype_of(module, where),
        )
    if cls is nn.LayerNorm:
        shape = tuple(module.normalized_shape)
        if len(shape) != 1:
            raise ValueError(f"{where}: normalized_shape: expected one size, got {shape}")
        if module.weight is None or module.bias is None:
            raise ValueError(
                f"{where}: elementwise_affine: expected weight and bias, got a LayerNorm without"
            )
        arrays, dtype = _parameters(module, where), _dtype_of(module, where)
        return LayerNorm._with_parameters(arrays, shape[0], eps=module.eps, dtype=dtype)
    if cls is nn.Dropout:
        return Dropout(_probability(module.p, where))
    if cls in (nn.Tanh, nn.ReLU, nn.Sigmoid):
        return Activation(cls.__name__.lower())
    if cls is nn.Softmax:
        if module.dim != -1:
            raise ValueError(f"{where}: dim: expected -1, the last axis, got {module.dim}")
        return Activation("softmax")
    raise TypeError(
        f"{where}: expected nn.RNN, nn.LSTM, nn.GRU, a cell of these, nn.Embedding, nn.Linear, "
        "nn.LayerNorm, nn.Dropout, nn.Tanh, nn.ReLU, nn.Sigmoid, nn.Softmax or nn.Sequential "
        f"itself (a subclass may compute something else), got {cls.__module__}.{cls.__name__}"
    )


def _recurrent(module: Any, kind: str, where: str) -> Layer:
    """The layer of an nn.RNN, nn.LSTM or nn.GRU, or of a cell."""
    cell = type(module).__name__.endswith("Cell")
    options: dict[str, Any] = {"bias": module.bias, "dtype": _dtype_of(module, where)}
    if not cell:
        options |= {
            "num_layers": module.num_layers,
            "bidirectional": module.bidirectional,
            "dropout": _probability(module.dropout, where),
            "batch_first": module.batch_first,
        }
    arrays = _parameters(module, where)
    if cell:
        arrays = _of_cell(arrays, f"{kind}Cell")
    sizes = (module.input_size, module.hidden_size)
    if kind == "RNN":
        options["nonlinearity"] = module.nonlinearity
        return RNN._with_parameters(arrays, *sizes, **options)
    if kind == "LSTM":
        options["proj_size"] = 0 if cell else module.proj_size
        return LSTM._with_parameters(arrays, *sizes, **options)
    return GRU._with_parameters(arrays, *sizes, **options, reset_after=True)


def _probability(p: float, where: str) -> float:
    if p >= 1:
        raise ValueError(f"{where}: dropout: expected a probability in [0, 1), got {p}")
    return float(p)


def _dtype_of(module: Any, where: str) -> str:
    """ "float32" or "float64", which all parameters of a module have."""
    found: dict[str, str] = {}
    for name, tensor in module.state_dict().items():
        found.setdefault(str(tensor.dtype), name)
    for dtype, name in found.items():
        if dtype not in ("torch.float32", "torch.float64") or len(found) > 1:
            raise DTypeError(
                f"{where}: {name}: expected float32 for all parameters or float64 for all, got "
                f"{dtype} (module.float() rounds)"
            )
    return next(iter(found), "float32").removeprefix("torch.")


def _parameters(module: Any, where: str) -> dict[str, Array]:
    return {
        name: _array(f"{where}: {name}", tensor) for name, tensor in module.state_dict().items()
    }


# --- compared


_ROWS, _STEPS = 3, 6
_LENGTHS = [4, _STEPS, 1]


def _verify_cell(torch: Any, cell: Any, layer: Layer) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(_ROWS, cell.input_size)).astype(layer.dtype)
    form = layer.initial_state(_ROWS)
    state = _random_state(random, form)
    given = [torch.from_numpy(part[0]) for part in _parts(state)]
    with torch.no_grad():
        found = cell(torch.from_numpy(x), given[0] if len(given) == 1 else tuple(given))
    _, after = layer.step(x, state)
    theirs = found if isinstance(found, tuple) else (found,)
    for letter, a, b in zip("hc", _parts(after), theirs, strict=False):
        require_equal(f"{letter} of {cell}", a[0], b.numpy())


def _verify_model(torch: Any, modules: list[Any], model: Layer | Sequential) -> None:
    """Runs both from zero with all steps live, and from a random state with lengths."""
    random = np.random.default_rng(0)
    x = _random_input(random, modules, model)
    layers = model.layers if isinstance(model, Sequential) else (model,)
    recurrent = [layer for layer in layers if isinstance(layer, Recurrent)]
    time_first = bool(recurrent) and not recurrent[0].batch_first
    if time_first:
        x = np.ascontiguousarray(x.swapaxes(0, 1))
    states = [_random_state(random, layer.initial_state(_ROWS)) for layer in recurrent]
    given: Any = (tuple(states) if isinstance(model, Sequential) else states[0]) if states else None
    for state, lengths in ((None, None), (given, _LENGTHS)):
        y, after = model(x, state, lengths)
        theirs, finals = _run(torch, modules, x, states if state is not None else [], lengths)
        words = f" of {_brief(modules)}" + ("" if lengths is None else " with state and lengths")
        live = np.arange(_STEPS) < np.reshape(lengths or [_STEPS] * _ROWS, (_ROWS, 1))
        live = live.T if time_first else live
        require_equal(f"output{words}", y[live], theirs[live])
        ours = [
            part
            for each in (after if isinstance(after, tuple) else (after,))
            for part in (_parts(each))
        ]
        for number, (a, b) in enumerate(zip(ours, finals, strict=True)):
            require_equal(f"state {number}{words}", a, b)


def _random_input(random: Any, modules: list[Any], model: Layer | Sequential) -> Array:
    """x (B, T, ...) for the first module that says what it takes."""
    shape = (_ROWS, _STEPS)
    for module in modules:
        if hasattr(module, "num_embeddings"):
            ids: Array = random.integers(0, module.num_embeddings, shape)
            if module.padding_idx is not None:
                ids[0, 0] = module.padding_idx
            return ids
        for name in ("input_size", "in_features"):
            if hasattr(module, name):
                wide = (*shape, getattr(module, name))
                return np.asarray(random.normal(size=wide), model.dtype)
        if hasattr(module, "normalized_shape"):
            wide = (*shape, module.normalized_shape[0])
            return np.asarray(random.normal(size=wide), model.dtype)
    return np.asarray(random.normal(size=(*shape, 4)), model.dtype)


def _run(
    torch: Any, modules: list[Any], x: Array, states: list[Any], lengths: list[int] | None
) -> tuple[Array, list[Array]]:
    """What the modules give one after the other, without dropout, and their final states."""
    rnn = torch.nn.utils.rnn
    value, waiting = torch.from_numpy(x), list(states)
    finals: list[Array] = []
    modes = {module: module.training for module in modules}
    try:
        with torch.no_grad():
            for module in modules:
                module.eval()
                if not hasattr(module, "num_layers"):
                    value = module(value)
                    continue
                parts = (
                    [torch.from_numpy(part) for part in _parts(waiting.pop(0))] if waiting else []
                )
                hx = (tuple(parts) if len(parts) > 1 else parts[0]) if parts else None
                if lengths is None:
                    value, final = module(value, hx)
                else:
                    packed = rnn.pack_padded_sequence(
                        value, lengths, batch_first=module.batch_first, enforce_sorted=False
                    )
                    packed, final = module(packed, hx)
                    value, _ = rnn.pad_packed_sequence(packed, batch_first=module.batch_first)
                finals += [part.numpy() for part in _parts(final)]
    finally:
        for module, training in modes.items():
            module.train(training)
    return value.numpy(), finals


def _brief(modules: list[Any]) -> str:
    return ", ".join(type(module).__name__ for module in modules)


def _parts(state: Any) -> list[Any]:
    """The arrays of a layer's state."""
    if state is None:
        return []
    return list(state) if isinstance(state, tuple) else [state]


def _random_state(random: Any, form: Any) -> Any:
    parts = [random.normal(size=part.shape).astype(part.dtype) for part in _parts(form)]
    return tuple(parts) if isinstance(form, tuple) else parts[0]


# --- to modules


def to_torch(model: Layer | Sequential) -> Any:
    """A module of PyTorch that computes what a layer or model does; the other way of `from_torch`.

    A Sequential becomes an `nn.Sequential`, or a `seqrs.torch.Sequential`, which gives (output,
    states), if a layer of it is recurrent. Names in its `state_dict()` are those of the model.

    Args:
        model: a layer or a Sequential, on any device.

    Returns:
        The module, on the CPU, in training mode as a new module is, with the parameters bit for
        bit.

    Raises:
        ModuleNotFoundError: PyTorch is not installed.
        TypeError: it is no layer, or one that PyTorch has no module for (`Last`, `MeanPool`,
            `MaxPool`).
        ValueError: a GRU has `reset_after=False`, which PyTorch does not have, or a layer has
            another option that PyTorch lacks.
    """
    torch = _torch()
    if isinstance(model, Sequential):
        from .. import torch as drop_ins

        recurrent = any(isinstance(layer, Recurrent) for layer in model)
        cls = drop_ins.Sequential if recurrent else torch.nn.Sequential
        first = model.batch_first
        return cls(*(_module(torch, each, f"layers[{k}]", first) for k, each in enumerate(model)))
    if isinstance(model, Layer):
        first = not isinstance(model, Recurrent) or model.batch_first
        return _module(torch, model, "layer", first)
    raise TypeError(f"model: expected a layer or a Sequential, got {shown(model)}")


#: Options by the word for a layer that its module has too, or that are of training here alone.
_CARRIED = {
    "rnn": {"nonlinearity"},
    "lstm": {"proj_size", "forget_bias"},
    "gru": {"reset_after"},
    "embedding": {"num_embeddings", "embedding_dim", "padding_idx"},
    "linear": {"in_features", "out_features", "bias"},
    "layer_norm": {"size", "eps"},
    "dropout": {"p"},
    "activation": {"function"},
}
_CARRIED_BY_RECURRENT = {
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "bidirectional",
    "dropout",
    "batch_first",
}


def _plain_options(layer: Layer) -> dict[str, Any]:
    """The options of a recurrent layer as they are by default."""
    if not isinstance(layer, Recurrent):
        return {}
    plain = next(cls for cls in (RNN, LSTM, GRU) if isinstance(layer, cls))
    return plain(1, 1)._options()


def _module(torch: Any, layer: Layer, where: str, batch_first: bool) -> Any:
    """The module of one layer, which stands at `where`."""
    nn = torch.nn
    if layer.kind not in _CARRIED:
        raise TypeError(
            f"{where}: expected a layer that PyTorch has a module for, got {layer!r}; take it off "
            "the model, and do its work on the outputs"
        )
    carried = _CARRIED[layer.kind] | {"kind", "seed"}
    if isinstance(layer, Recurrent):
        carried |= _CARRIED_BY_RECURRENT
    plain = _plain_options(layer)
    for name, value in layer._options().items():
        if name not in carried and value != plain.get(name):
            raise ValueError(
                f"{where}: {name}: expected {plain.get(name)!r}, as PyTorch has no other, "
                f"got {value!r}"
            )
    if isinstance(layer, RNN) and layer.nonlinearity not in ("tanh", "relu"):
        raise ValueError(
            f"{where}: nonlinearity: expected 'tanh' or 'relu', as PyTorch has no other, "
            f"got {layer.nonlinearity!r}"
        )
    # A module on the device meta draws nothing, so that PyTorch's generator stays as it is.
    made: dict[str, Any] = {"dtype": getattr(torch, layer.dtype), "device": "meta"}
    if isinstance(layer, Recurrent):
        options = {
            "num_layers": layer.num_layers,
            "bias": layer.bias,
            "batch_first": batch_first,
            # Of one layer it does nothing, and PyTorch warns of it.
            "dropout": layer.dropout if layer.num_layers > 1 else 0.0,
            "bidirectional": layer.bidirectional,
            **made,
        }
        sizes = (layer.input_size, layer.hidden_size)
        if isinstance(layer, RNN):
            module = nn.RNN(*sizes, nonlinearity=layer.nonlinearity, **options)
        elif isinstance(layer, LSTM):
            module = nn.LSTM(*sizes, proj_size=layer.proj_size, **options)
        elif isinstance(layer, GRU) and layer.reset_after:
            module = nn.GRU(*sizes, **options)
        else:
            raise ValueError(
                f"{where}: expected a GRU with reset_after=True, as PyTorch's is, got one with "
                "reset_after=False, which is another function"
            )
    elif isinstance(layer, Embedding):
        sizes = (layer.num_embeddings, layer.embedding_dim)
        module = nn.Embedding(*sizes, padding_idx=layer.padding_idx, **made)
    elif isinstance(layer, Linear):
        module = nn.Linear(layer.in_features, layer.out_features, layer.bias, **made)
    elif isinstance(layer, LayerNorm):
        module = nn.LayerNorm(layer.size, eps=layer.eps, **made)
    elif isinstance(layer, Dropout):
        module = nn.Dropout(layer.p)
    else:
        assert isinstance(layer, Activation)
        modules = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}
        module = modules.get(layer.function, lambda: nn.Softmax(dim=-1))()
    module.to_empty(device="cpu")
    module.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
    return module
