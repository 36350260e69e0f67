"""PyTorch's recurrent modules, computed by seqrs on the CPU: a change of the import is enough.

    from torch import nn                    ->    import seqrs.torch
    nn.LSTM(64, 256, batch_first=True)            seqrs.torch.LSTM(64, 256, batch_first=True)

>>> import torch
>>> module = seqrs.torch.LSTM(8, 16, bidirectional=True, batch_first=True)
>>> y, (h, c) = module(torch.randn(2, 5, 8))
>>> y.sum().backward()
>>> module.weight_ih_l0.grad.shape
torch.Size([64, 8])

`RNN`, `LSTM` and `GRU` are subclasses of PyTorch's modules: constructor, first weights (the same
after `torch.manual_seed`), names and shapes in `state_dict`, errors, packed sequences, unbatched
input and dropout between layers (the same draws) are PyTorch's own; what is replaced is the
computation, forward and back, in float32 and float64. It uses the threads of seqrs
(`seqrs.set_num_threads`), not those of PyTorch.

The weights are parameters of PyTorch, so its optimisers train them. Each call compares them with
those that it computed with last, and takes them over where they differ, however they were changed:
`_version` does not tell of `p.data.add_(...)` and of fused optimisers. That reads the parameters
twice, as much memory traffic as two steps of one row, and keeps two more copies of them. The first
call builds the layer.

Not there, and refused by name: other devices and dtypes, derivatives of derivatives, `torch.jit`.
Under autocast it computes in the dtype of its weights.

`Sequential` is an `nn.Sequential` whose recurrent modules hand on their outputs.

It needs the package: `pip install 'seqrs[torch]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

try:
    import torch
except ModuleNotFoundError as error:
    message = "torch: expected the package (pip install 'seqrs[torch]'), got none"
    raise ModuleNotFoundError(message, name="torch") from error

import numpy as np
from torch.nn.utils.rnn import PackedSequence

from .errors import DTypeError
from .recurrent import GRU as _GRU
from .recurrent import LSTM as _LSTM
from .recurrent import RNN as _RNN

if TYPE_CHECKING:
    import numpy.typing as npt

    from .recurrent import Recurrent

    Array = npt.NDArray[Any]

__all__ = ["GRU", "LSTM", "RNN", "Sequential"]


class _Compiled(NamedTuple):
    """A layer of seqrs, and the weights that it was given."""

    layer: Recurrent
    #: By the name that each has in the layer.
    weights: dict[str, Array]

    def with_weights(self, weights: dict[str, Array]) -> _Compiled:
        """This one if the weights are the same bits, or one with these."""
        if self.weights and all(_same(a, self.weights[name]) for name, a in weights.items()):
            return self
        kept = {name: np.array(a) for name, a in weights.items()}
        # Another handle, so that a tape of the one before stays usable.
        layer = self.layer.__copy__()
        layer.load_state_dict(kept)
        return _Compiled(layer, kept)


def _same(a: Array, b: Array) -> bool:
    """Whether they are the same bits, NaN and signed zeros included."""
    bits = np.uint32 if a.dtype.itemsize == 4 else np.uint64
    return np.array_equal(np.ascontiguousarray(a).view(bits), b.view(bits))


class _Call(NamedTuple):
    """What a call needs besides tensors."""

    #: What the module is called in messages.
    name: str
    compiled: _Compiled
    #: How many of the tensors are initial states.
    states: int
    #: (T, B), the steps that a packed sequence has; None if x is not packed.
    live: Array | None

    def padded(self, data: Array) -> Array:
        """Packed data (N, F) as the layer takes it."""
        if self.live is None:
            return data
        # Packed data goes through the steps, and at each through the rows that have it.
        array = np.zeros((*self.live.shape, data.shape[-1]), data.dtype)
        array[self.live] = data
        return array.swapaxes(0, 1) if self.compiled.layer.batch_first else array

    def packed(self, array: Array) -> Array:
        """The other way."""
        if self.live is None:
            return array
        return (array.swapaxes(0, 1) if self.compiled.layer.batch_first else array)[self.live]

    def lengths(self) -> Array | None:
        return None if self.live is None else self.live.sum(0)

    def state(self, tensors: tuple[Any, ...]) -> Any:
        """The initial state in the layer's form."""
        arrays = tuple(tensor.detach().numpy() for tensor in tensors[: self.states])
        return _in_form(arrays, self.compiled.layer)


def _in_form(arrays: tuple[Array, ...], layer: Recurrent) -> Any:
    if not arrays:
        return None
    return arrays if isinstance(layer, _LSTM) else arrays[0]


def _parts(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


class _Sequence(torch.autograd.Function):
    """One call of a layer, with its tape: (call, x, initial states, weights) -> y, final states."""

    @staticmethod
    def forward(ctx: Any, call: _Call, x: Any, *tensors: Any) -> tuple[Any, ...]:
        y, final, tape = call.compiled.layer.forward(
            call.padded(x.detach().numpy()), call.state(tensors), call.lengths(), training=False
        )
        # The tape goes where saved tensors go, so that it is let go when they are: after the first
        # backward, unless the graph is retained.
        keeper: Any = torch.empty(0)
        keeper.tape = tape
        ctx.save_for_backward(keeper, x, *tensors)
        ctx.call = call
        ctx.final = [(part.shape, part.dtype) for part in _parts(final)]
        ctx.set_materialize_grads(False)
        return tuple(torch.from_numpy(array) for array in (call.packed(y), *_parts(final)))

    @staticmethod
    def backward(ctx: Any, dy: Any, *dfinal: Any) -> tuple[Any, ...]:
        if dy is None and all(each is None for each in dfinal):
            return (None,) * len(ctx.needs_input_grad)
        keeper, *inputs = ctx.saved_tensors
        call: _Call = ctx.call
        if not hasattr(keeper, "tape"):
            raise RuntimeError(
                f"{call.name}: expected saved tensors as they were, got others: hooks that move or "
                "pack saved tensors are not supported"
            )
        layer = call.compiled.layer
        dstate: Any = None
        if any(each is not None for each in dfinal):
            dstate = _in_form(
                tuple(
                    np.zeros(*zero) if each is None else each.detach().numpy()
                    for each, zero in zip(dfinal, ctx.final, strict=True)
                ),
                layer,
            )
        found = layer.backward(
            keeper.tape, None if dy is None else call.padded(dy.detach().numpy()), dstate
        )
        assert found.x is not None
        arrays = [call.packed(found.x)]
        if call.states:
            arrays += _parts(found.state)
        arrays += [found.params[name] for name in call.compiled.weights]
        needed = ctx.needs_input_grad[1:]
        gradients = [
            torch.from_numpy(array) if need else None
            for array, need in zip(arrays, needed, strict=True)
        ]
        if torch.is_grad_enabled():
            sources = [t for t in (dy, *dfinal, *inputs) if t is not None and t.requires_grad]
            given = [each for each in gradients if each is not None]
            marked = iter(_Once.apply(call.name, len(given), *given, *sources))
            gradients = [None if each is None else next(marked) for each in gradients]
        return (None, *gradients)


class _Once(torch.autograd.Function):
    """(name, n, n gradients, what they were computed from) -> the gradients.

    They depend on all of it, so that whoever asks for a derivative of theirs comes by here.
    """

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *tensors: Any) -> tuple[Any, ...]:
        ctx.name = name
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[Any, ...]:
        raise RuntimeError(
            f"{ctx.name}: expected to be differentiated once, got a derivative of its gradients "
            "(use the module of torch.nn for that)"
        )


class _Recurrent:
    """What the three have in common: `forward`, in the place of PyTorch's."""

    # The options that layers were built with, and the layers; both at once, so that threads that
    # call one module see what belongs together.
    _built: tuple[tuple[Any, ...], tuple[_Compiled, ...]] = ((), ())

    # What PyTorch's module has.
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    mode: str
    training: bool
    permute_hidden: Any
    check_input: Any
    check_forward_args: Any
    _flat_weights: list[Any]
    _flat_weights_names: list[str]
    _update_flat_weights: Any

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """As PyTorch's: (output, final state).

        Args:
            input: (T, B, I), (B, T, I) with `batch_first`, (T, I), or a PackedSequence.
            hx: the initial state h, (h, c) for an LSTM, each (L*D, B, .), or (L*D, .) if the input
                has no batch; None for zeros.

        Raises:
            RuntimeError, ValueError: a shape does not fit; in PyTorch's words.
            RuntimeError: a derivative of a gradient is asked for, or to be traced; PyTorch says so
                of its own functions that are differentiated once.
            DTypeError: a tensor is not on the CPU, or not of the dtype of the weights, which is
                float32 or float64.
        """
        jit: Any = torch.jit
        if torch.compiler.is_compiling() or jit.is_tracing():
            raise RuntimeError(
                f"seqrs.torch.{type(self).__name__}: expected to be called as it is, got traced: "
                "what it computes cannot go into a graph of PyTorch"
            )
        self._update_flat_weights()
        self._require_state(hx)
        if isinstance(input, PackedSequence):
            x, batch_sizes, order, back = input
            if hx is not None:
                hx = self.permute_hidden(hx, order)
            # Rows are sorted by length, so those that have a step are the first ones.
            sizes = batch_sizes.numpy()
            live = np.arange(sizes[0]) < sizes[:, None]
            y, final = self._run(x, hx, batch_sizes, live)
            return PackedSequence(y, batch_sizes, order, back), self.permute_hidden(final, back)
        if input.dim() not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D instead"
            )
        batched = input.dim() == 3
        for part in () if hx is None else _parts(hx):
            if part.dim() != input.dim():
                words = "batched 3-D" if batched else "unbatched 2-D"
                raise RuntimeError(
                    f"For {words} input, hx should also be {input.dim()}-D but got {part.dim()}-D "
                    "tensor"
                )
        if batched:
            return self._run(input, hx, None, None)
        batch_axis = 0 if self.batch_first else 1
        if hx is not None:
            hx = _each(hx, lambda part: part.unsqueeze(1))
        y, final = self._run(input.unsqueeze(batch_axis), hx, None, None)
        return y.squeeze(batch_axis), _each(final, lambda part: part.squeeze(1))

    def _run(self, x: Any, hx: Any, batch_sizes: Any, live: Array | None) -> tuple[Any, Any]:
        """(output, final state) of batched or packed x, whose rows are in the order of hx."""
        if hx is None:
            self.check_input(x, batch_sizes)
        else:
            self.check_forward_args(x, hx, batch_sizes)
        if live is None and x.size(1 if self.batch_first else 0) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        weights = self._flat_weights
        states = () if hx is None else _parts(hx)
        self._require_tensors(x, states, weights)
        layers = self._layers(weights)
        if len(layers) == 1:
            y, finals = self._call(layers[0], x, states, weights, live)
        else:
            y, finals = self._stacked(layers, x, states, weights, live)
        return y, finals if isinstance(layers[0].layer, _LSTM) else finals[0]

    def _stacked(
        self,
        layers: tuple[_Compiled, ...],
        x: Any,
        states: tuple[Any, ...],
        weights: list[Any],
        live: Array | None,
    ) -> tuple[Any, tuple[Any, ...]]:
        """Layer by layer, with PyTorch's dropout between them.

        It draws for the outputs in time-first order, as PyTorch's own modules do, so that the draws
        are theirs, and come again where a checkpoint computes the layers again.
        """
        transposed = live is None and self.batch_first
        y = x.transpose(0, 1) if transposed else x
        directions = 2 if self.bidirectional else 1
        each = len(weights) // len(layers)
        finals = []
        for k, compiled in enumerate(layers):
            if k > 0:
                y = torch.nn.functional.dropout(y, self.dropout, self.training)
            rows = slice(k * directions, (k + 1) * directions)
            own = tuple(part[rows] for part in states)
            y, final = self._call(compiled, y, own, weights[k * each : (k + 1) * each], live)
            finals.append(final)
        joined = tuple(torch.cat(parts) for parts in zip(*finals, strict=True))
        return y.transpose(0, 1) if transposed else y, joined

    def _call(
        self,
        compiled: _Compiled,
        x: Any,
        states: tuple[Any, ...],
        weights: list[Any],
        live: Array | None,
    ) -> tuple[Any, tuple[Any, ...]]:
        """One layer, on the tape of autograd if there is something to differentiate."""
        call = _Call(f"seqrs.torch.{type(self).__name__}", compiled, len(states), live)
        tensors = (*states, *weights)
        if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *tensors)):
            y, *finals = _Sequence.apply(call, x, *tensors)
            return y, tuple(finals)
        array, final = compiled.layer(
            call.padded(x.detach().numpy()), call.state(tensors), call.lengths()
        )
        y = torch.from_numpy(call.packed(array))
        return y, tuple(torch.from_numpy(part) for part in _parts(final))

    def _layers(self, weights: list[Any]) -> tuple[_Compiled, ...]:
        """One layer of seqrs for all, or one for each where dropout stands between them."""
        split = self.num_layers > 1 and self.dropout > 0
        dtype = str(weights[0].dtype).removeprefix("torch.")
        options = (
            self.mode,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bias,
            self.batch_first,
            self.bidirectional,
            self.proj_size,
            split,
            dtype,
        )
        built_with, compiled = self._built
        if built_with != options:
            compiled = self._build(split, dtype)
        each = len(weights) // len(compiled)
        names = self._flat_weights_names[:each]
        compiled = tuple(
            one.with_weights(
                {
                    name: weight.detach().numpy()
                    for name, weight in zip(names, weights[k * each :], strict=False)
                }
            )
            for k, one in enumerate(compiled)
        )
        self._built = (options, compiled)
        return compiled

    def _build(self, split: bool, dtype: str) -> tuple[_Compiled, ...]:
        options: dict[str, Any] = {
            "num_layers": 1 if split else self.num_layers,
            "bias": self.bias,
            "bidirectional": self.bidirectional,
            "batch_first": self.batch_first and not split,
            "dtype": dtype,
        }
        given = (self.proj_size or self.hidden_size) * (2 if self.bidirectional else 1)
        inputs = [self.input_size] + [given] * (self.num_layers - 1)
        built: list[Recurrent] = []
        for size in inputs if split else inputs[:1]:
            if self.mode == "LSTM":
                built.append(_LSTM(size, self.hidden_size, proj_size=self.proj_size, **options))
            elif self.mode == "GRU":
                built.append(_GRU(size, self.hidden_size, reset_after=True, **options))
            else:
                word = self.mode.removeprefix("RNN_").lower()
                built.append(_RNN(size, self.hidden_size, nonlinearity=word, **options))
        return tuple(_Compiled(layer, {}) for layer in built)

    def _require_state(self, hx: Any) -> None:
        """Raises a TypeError if it does not have the form of a state."""
        if hx is None:
            return
        if self.mode == "LSTM":
            if not (isinstance(hx, tuple) and len(hx) == 2):
                raise TypeError(f"hx: expected a tuple of two tensors (h, c), got {type(hx)}")
        elif not isinstance(hx, torch.Tensor):
            raise TypeError(f"hx: expected a tensor, got {type(hx)}")

    def _require_tensors(self, x: Any, states: tuple[Any, ...], weights: list[Any]) -> None:
        """Raises a DTypeError if one is not on the CPU, or not of the dtype of all."""
        named = [
            *zip(self._flat_weights_names, weights, strict=True),
            ("input", x),
            *zip(("hx[0]", "hx[1]") if len(states) > 1 else ("hx",), states, strict=False),
        ]
        dtype = weights[0].dtype
        where = f"seqrs.torch.{type(self).__name__}"
        for name, tensor in named:
            if tensor.device.type != "cpu":
                raise DTypeError(
                    f"{where}: {name}: expected a tensor on the CPU, got one on {tensor.device}"
                )
            if tensor.dtype != dtype or dtype not in (torch.float32, torch.float64):
                expected = "float32 or float64" if tensor is weights[0] else dtype
                raise DTypeError(f"{where}: {name}: expected {expected}, got {tensor.dtype}")

    def __getstate__(self) -> Any:
        # Layers are built again where the module is read.
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_built"}


def _each(state: Any, function: Any) -> Any:
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)


class RNN(_Recurrent, torch.nn.RNN):
    """`torch.nn.RNN`, computed by seqrs; same arguments, same errors."""


class LSTM(_Recurrent, torch.nn.LSTM):
    """`torch.nn.LSTM`, computed by seqrs; same arguments, same errors."""


class GRU(_Recurrent, torch.nn.GRU):
    """`torch.nn.GRU`, computed by seqrs; same arguments, same errors."""


class Sequential(torch.nn.Sequential):
    """An `nn.Sequential` whose recurrent modules hand on their outputs, as `seqrs.Sequential` does.

    In PyTorch's own a recurrent module hands on the tuple (output, state), which no module after it
    takes. Names in `state_dict` are the same.
    """

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, tuple[Any, ...]]:
        """(output, the final state of each recurrent module, in order).

        Args:
            input: what the first module takes.
            hx: what an earlier call gave, or None for zeros; None also stands for zeros in the
                place of one module's state.

        Raises:
            ValueError: `hx` does not have one state for each recurrent module.
        """
        recurrent = [module for module in self if isinstance(module, torch.nn.RNNBase)]
        states = [None] * len(recurrent) if hx is None else list(hx)
        if len(states) != len(recurrent):
            raise ValueError(
                f"hx: expected a state for each of {len(recurrent)} recurrent modules, got "
                f"{len(states)}"
            )
        waiting, finals = iter(states), []
        for module in self:
            if isinstance(module, torch.nn.RNNBase):
                input, final = module(input, next(waiting))
                finals.append(final)
            else:
                input = module(input)
        return input, tuple(finals)
