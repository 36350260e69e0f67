"""The recurrent layers: RNN, LSTM and GRU, stacked and in both directions.

Letters: B rows, T steps, I inputs, H hidden units, L layers, D directions (1 or 2). x is (B, T, I),
y (B, T, D*H); with `batch_first=False` they are (T, B, I) and (T, B, D*H). States have one slot for
each layer and direction, ordered l0, l0_reverse, l1, ...

Parameters have PyTorch's names, shapes and gate order: `weight_ih_l{k}` (G*H, I), `weight_hh_l{k}`
(G*H, H), `bias_ih_l{k}` and `bias_hh_l{k}` (G*H), with the suffix `_reverse` for the second
direction. W_ih starts Glorot uniform and W_hh orthogonal, gate by gate; biases start as 0, but for
an LSTM's forget gate. An LSTM's peepholes, which PyTorch has not, start Glorot uniform with both
fans H (as in Keras's PeepholeLSTMCell): in +-sqrt(3 / H).

The functions of a cell are those of `seqrs.functions`, each the name of one, or a tuple of its name
and its numbers: `gate_activation="hard_sigmoid"`, `nonlinearity=("leaky_relu", 0.2)`. With `clip`
the sum that a gate's or the candidate's function is applied to, biases and all else in it, is cut
to [-clip, clip] first; where it was beyond, its gradient is 0. What PyTorch lacks is the coupled
LSTM, peepholes, `clip`, and all functions but those by default and an RNN's "relu".

A tape holds, for N live steps of all rows together (B*T where all are live), in numbers of the
layer's dtype (4 or 8 bytes each; `tape.nbytes` is that many bytes):

    N (I + L D (A H + P)) + B L D S                       and N 2 D P (L - 1) more with dropout
                                                          N L D (2 G H + 2)  with layer_norm,
                                                          N L D (H + 1)      and that for an LSTM
                                                          N L D P, N L D H   with zoneout of h, of c
                                                          the same again, and B L D P, for what
                                                          training draws of zoneout, of h'

P is the size of h: H, or an LSTM's `proj_size`. A H numbers are kept besides h at each step: A is 0
for an RNN of "tanh" or "relu" and 1 for any other or one with `clip`, 5 for an LSTM, 4 for one with
`coupled=True`, 3 for a GRU, 4 for one with `reset_after=True`; other functions and `clip` change
nothing else. S is the size of the state before the first step: H, or P + H for an LSTM. So an LSTM
in float32 keeps 24 H bytes for each live step, layer and direction, and its input once.

Besides tape and results, calls need memory for a moment only, however many shapes they have seen: a
copy of x; for each thread gates from the input, at most 512 KiB, or what its rows (256 at a time)
need for one step where that is more; as many again for one step of those rows where the cell has
other functions than by default, or `clip`; at inference up to 2 N D P numbers between layers.
`backward` needs a copy of dy (and another in the order of the steps, if batch-first), and for one
layer at a time N D G H numbers for the gradients of its gates (twice as many with
`reset_after=True`; with peepholes 3 N D H more, or 2 N D H if coupled) and those of its input and
output. G is 1 for an RNN, 4 for an LSTM, 3 for a coupled one and a GRU. What training is done with
is kept for its next step: at most 256 MB, for all layers and models of the process together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .functions import Function, function
from .layers import Layer, Option
from .options import dtype_name, flag, integer, real
from .options import seed as checked_seed

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]


class Recurrent(Layer):
    """What RNN, LSTM and GRU share."""

    __slots__ = ()

    input_size = Option[int]("Inputs of a step, I.")
    hidden_size = Option[int]("Hidden units, H.")
    num_layers = Option[int]("Layers on top of each other, L.")
    bias = Option[bool]("Whether gates have biases.")
    bidirectional = Option[bool]("Whether each layer also reads from the last step to the first.")
    dropout = Option[float]("Share of the outputs between two layers that training drops.")
    recurrent_dropout = Option[float]("Share of h' that training hides from recurrent products.")
    zoneout = Option[float]("Share of h that stays as it was before a step.")
    batch_first = Option[bool]("Whether x is (B, T, I) rather than (T, B, I).")
    seed = Option[int]("The seed of the initial weights and of dropout.")

    def _options(self) -> dict[str, Any]:
        # What is as it is by default is not said, in files either.
        options = _UNSAID[self.kind] | super()._options()
        # JSON has lists for the tuples of functions and their numbers.
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in options.items()
        }


#: For each kind of layer the options that are left out where they are these.
_UNSAID: dict[str, dict[str, Any]] = {
    "rnn": {"clip": None, "recurrent_dropout": 0.0, "zoneout": 0.0},
    "lstm": {
        "recurrent_dropout": 0.0,
        "zoneout": 0.0,
        "zoneout_cell": 0.0,
        "layer_norm": False,
        "peepholes": False,
        "coupled": False,
        "gate_activation": "sigmoid",
        "candidate_activation": "tanh",
        "output_activation": "tanh",
        "clip": None,
    },
    "gru": {
        "recurrent_dropout": 0.0,
        "zoneout": 0.0,
        "layer_norm": False,
        "gate_activation": "sigmoid",
        "candidate_activation": "tanh",
        "clip": None,
    },
}


def _clip(clip: float | None) -> float | None:
    return None if clip is None else real("clip", clip, above=0.0)


def _shared(
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    dropout: float,
    recurrent_dropout: float,
    zoneout: float,
    batch_first: bool,
    seed: int,
) -> dict[str, Any]:
    return {
        "input_size": integer("input_size", input_size),
        "hidden_size": integer("hidden_size", hidden_size),
        "num_layers": integer("num_layers", num_layers),
        "bias": flag("bias", bias),
        "bidirectional": flag("bidirectional", bidirectional),
        "dropout": real("dropout", dropout, 0.0, 1.0),
        "recurrent_dropout": real("recurrent_dropout", recurrent_dropout, 0.0, 1.0),
        "zoneout": real("zoneout", zoneout, 0.0, 1.0),
        "batch_first": flag("batch_first", batch_first),
        "seed": checked_seed(seed),
    }


class RNN(Recurrent):
    """The simple recurrent network of Elman (1990), by back-propagation through time.

        a<t> = g1(W_aa a<t-1> + W_ax x<t> + b_a)              the textbook
        h = g1(W_ih x + b_ih + W_hh h' + b_hh)                in the names of the parameters

    A prime marks the previous step. W_aa is `weight_hh`, W_ax `weight_ih`, b_a the sum of both
    biases; y^<t> = g2(W_ya a<t> + b_y) is a `Linear` after it, with the softmax in `CrossEntropy`.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        nonlinearity: g1, "tanh", "relu" or another function (`seqrs.functions`).
        clip: what the sum is cut to before g1, [-clip, clip]; None for no bound.
        bias: whether b_ih and b_hh are there.
        bidirectional: whether each layer also reads from the last live step to the first.
        dropout: in [0, 1), applied in training to the outputs of each layer but the last.
        recurrent_dropout: in [0, 1), the share of h' that the recurrent products of training do not
            see: the same units at all steps of a sequence, the others scaled by 1 / (1 - it) (Gal &
            Ghahramani 2016).
        zoneout: in [0, 1), the share of h that stays as it was before a step (Krueger et al. 2017):
            each unit by chance in training, z h' + (1 - z) h otherwise.
        batch_first: whether x is (B, T, I) rather than (T, B, I).
        dtype: "float32" or "float64".
        seed: of the initial weights and of dropout.

    State: h (L*D, B, H).

    Raises:
        TypeError, ValueError: an option is none; ShapeError and MemoryError for sizes.
    """

    kind = "rnn"
    shown = (
        "input_size",
        "hidden_size",
        "num_layers",
        "nonlinearity",
        "clip",
        "bias",
        "bidirectional",
        "dropout",
        "recurrent_dropout",
        "zoneout",
        "batch_first",
        "dtype",
        "seed",
    )
    __slots__ = ()

    nonlinearity = Option[Function]("The function of the sum.")
    clip = Option["float | None"]("The bound of the sum, or None.")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Function = "tanh",
        clip: float | None = None,
        bias: bool = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        batch_first: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int = 0,
    ) -> None:
        options = _shared(
            input_size,
            hidden_size,
            num_layers,
            bias,
            bidirectional,
            dropout,
            recurrent_dropout,
            zoneout,
            batch_first,
            seed,
        )
        options["nonlinearity"] = function("nonlinearity", nonlinearity)
        options["clip"] = _clip(clip)
        self._build(options, dtype_name(dtype))


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

        f, i, o = s(W [h', x] + b)                            the textbook
        c~ = tanh(W_c [h', x] + b_c)
        c  = f * c' + i * c~
        h  = o * tanh(c)

        s, c~ of  W_ih x + b_ih + W_hh h' + b_hh              in the names of the parameters
                  + w_ci * c', w_cf * c', w_co * c            with peepholes, in i, f, o

        c  = (1 - i) * c' + i * c~                            coupled, without f
        s, c~ of  norm(W_ih x) + b_ih + norm(W_hh h') + b_hh,  h = o * tanh(norm(c))    layer_norm

    A prime marks the previous step, s is the sigmoid, and the gates are the rows of each parameter
    in PyTorch's order i f g o, where g stands for c~, and i g o if they are coupled. Other
    functions may stand for s, for the tanh of c~, and for that of c.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        bias: whether b_ih and b_hh are there.
        bidirectional: whether each layer also reads from the last live step to the first.
        dropout: in [0, 1), applied in training to the outputs of each layer but the last.
        recurrent_dropout: in [0, 1), the share of h' that the recurrent products of training do not
            see: the same units at all steps of a sequence, the others scaled by 1 / (1 - it) (Gal &
            Ghahramani 2016).
        zoneout: in [0, 1), the share of h that stays as it was before a step (Krueger et al. 2017):
            each unit by chance in training, z h' + (1 - z) h otherwise.
        zoneout_cell: the same of c.
        proj_size: P in [0, H); above 0, h is W_hr (o * tanh(c)) of P units (Sak et al. 2014),
            and y has D*P features.
        peepholes: whether the gates see the cell state too (Gers & Schmidhuber 2000), each unit its
            own: `weight_ci_l{k}`, `weight_cf_l{k}` and `weight_co_l{k}` (H). i and f read the state
            before the step, o the new one.
        coupled: whether there is no forget gate, and f = 1 - i: what is taken in is what is
            forgotten (the CIFG of Greff et al. 2017, ONNX's `input_forget`). Parameters have 3H
            rows then, and there is no `weight_cf`.
        gate_activation: the function of the gates (`seqrs.functions`).
        candidate_activation: that of c~.
        output_activation: that of c, on its way into h.
        clip: what the sums of gates and c~ are cut to before their functions, [-clip, clip], with
            biases and peepholes in them; None for no bound. c is not cut.
        layer_norm: whether W_ih x, W_hh h' and the c that h shows are normalised (Ba et al. 2016,
            as haste has it): `norm_ih_l{k}` and `norm_hh_l{k}` (4H) are what the first two are
            multiplied with, over the gates of all units together and before their biases,
            `norm_c_l{k}` and `norm_bias_c_l{k}` (H) belong to the third. Not with peepholes.
        forget_bias: the initial value of the forget gate's part of b_ih. If coupled, that of the
            input gate is minus it, which starts f at the same.
        batch_first: whether x is (B, T, I) rather than (T, B, I).
        dtype: "float32" or "float64".
        seed: of the initial weights and of dropout.

    State: (h, c), h (L*D, B, P or H) and c (L*D, B, H).

    Raises:
        TypeError, ValueError: an option is none; ShapeError and MemoryError for sizes.
    """

    kind = "lstm"
    shown = (
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "bidirectional",
        "dropout",
        "recurrent_dropout",
        "zoneout",
        "zoneout_cell",
        "proj_size",
        "peepholes",
        "coupled",
        "gate_activation",
        "candidate_activation",
        "output_activation",
        "clip",
        "layer_norm",
        "forget_bias",
        "batch_first",
        "dtype",
        "seed",
    )
    __slots__ = ()

    proj_size = Option[int]("Units of the projected hidden state, or 0 for no projection.")
    forget_bias = Option[float]("What the forget gate's bias started from.")
    peepholes = Option[bool]("Whether gates see the cell state.")
    coupled = Option[bool]("Whether 1 - i stands for the forget gate.")
    gate_activation = Option[Function]("The function of the gates.")
    candidate_activation = Option[Function]("The function of the candidate.")
    output_activation = Option[Function]("The function of the cell state, on its way into h.")
    zoneout_cell = Option[float]("Share of c that stays as it was before a step.")
    layer_norm = Option[bool]("Whether gates and the c that h shows are normalised.")
    clip = Option["float | None"]("The bound of the sums of gates and candidate, or None.")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        zoneout_cell: float = 0.0,
        proj_size: int = 0,
        peepholes: bool = False,
        coupled: bool = False,
        gate_activation: Function = "sigmoid",
        candidate_activation: Function = "tanh",
        output_activation: Function = "tanh",
        clip: float | None = None,
        layer_norm: bool = False,
        forget_bias: float = 1.0,
        batch_first: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int = 0,
    ) -> None:
        options = _shared(
            input_size,
            hidden_size,
            num_layers,
            bias,
            bidirectional,
            dropout,
            recurrent_dropout,
            zoneout,
            batch_first,
            seed,
        )
        options["proj_size"] = integer("proj_size", proj_size, 0)
        options["peepholes"] = flag("peepholes", peepholes)
        options["coupled"] = flag("coupled", coupled)
        options["gate_activation"] = function("gate_activation", gate_activation)
        options["candidate_activation"] = function("candidate_activation", candidate_activation)
        options["output_activation"] = function("output_activation", output_activation)
        options["clip"] = _clip(clip)
        options["zoneout_cell"] = real("zoneout_cell", zoneout_cell, 0.0, 1.0)
        options["layer_norm"] = flag("layer_norm", layer_norm)
        options["forget_bias"] = real("forget_bias", forget_bias)
        self._build(options, dtype_name(dtype))


class GRU(Recurrent):
    """The gated recurrent unit, in its two forms (Cho et al. 2014).

        u  = s(W_u [c', x] + b_u)                             the textbook
        r  = s(W_r [c', x] + b_r)
        c~ = tanh(W_c [r * c', x] + b_c)
        c  = u * c' + (1 - u) * c~,  a = c

        reset_after=False   n = tanh(W_in x + b_in + W_hn (r * h'))             arXiv 1406.1078v3
        reset_after=True    n = tanh(W_in x + b_in + r * (W_hn h' + b_hn))      arXiv 1406.1078v1

    A prime marks the previous step and s is the sigmoid. The state is h here, and the gates are the
    rows of each parameter in PyTorch's order r z n, where z is u and n is c~. Other functions may
    stand for s and for tanh.

    The first form is the textbook's and has one bias per gate, so no `bias_hh_l*`; the second is
    PyTorch's and cuDNN's. They are different functions: weights of one are refused by the other.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: L.
        reset_after: whether the reset gate acts after the product.
        gate_activation: the function of the gates (`seqrs.functions`).
        candidate_activation: that of c~.
        clip: what the sums of gates and c~ are cut to before their functions, [-clip, clip]; None
            for no bound. That of c~ is cut as a whole, after the reset gate.
        layer_norm: whether W_ih x and W_hh h' are normalised (Ba et al. 2016, as haste has it),
            over the gates of all units together and before their biases: `norm_ih_l{k}` and
            `norm_hh_l{k}` (3H) are what they are multiplied with. With `reset_after` only.
        bias: whether gates have biases.
        bidirectional: whether each layer also reads from the last live step to the first.
        dropout: in [0, 1), applied in training to the outputs of each layer but the last.
        recurrent_dropout: in [0, 1), the share of h' that the recurrent products of training do not
            see: the same units at all steps of a sequence, the others scaled by 1 / (1 - it) (Gal &
            Ghahramani 2016).
        zoneout: in [0, 1), the share of h that stays as it was before a step (Krueger et al. 2017):
            each unit by chance in training, z h' + (1 - z) h otherwise.
        batch_first: whether x is (B, T, I) rather than (T, B, I).
        dtype: "float32" or "float64".
        seed: of the initial weights and of dropout.

    State: h (L*D, B, H).

    Raises:
        TypeError, ValueError: an option is none; ShapeError and MemoryError for sizes.
    """

    kind = "gru"
    shown = (
        "input_size",
        "hidden_size",
        "num_layers",
        "reset_after",
        "gate_activation",
        "candidate_activation",
        "clip",
        "layer_norm",
        "bias",
        "bidirectional",
        "dropout",
        "recurrent_dropout",
        "zoneout",
        "batch_first",
        "dtype",
        "seed",
    )
    __slots__ = ()

    reset_after = Option[bool]("Whether the reset gate acts after the product.")
    gate_activation = Option[Function]("The function of the gates.")
    candidate_activation = Option[Function]("The function of the candidate.")
    layer_norm = Option[bool]("Whether gates are normalised.")
    clip = Option["float | None"]("The bound of the sums of gates and candidate, or None.")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = False,
        gate_activation: Function = "sigmoid",
        candidate_activation: Function = "tanh",
        clip: float | None = None,
        layer_norm: bool = False,
        bias: bool = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        batch_first: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int = 0,
    ) -> None:
        options = _shared(
            input_size,
            hidden_size,
            num_layers,
            bias,
            bidirectional,
            dropout,
            recurrent_dropout,
            zoneout,
            batch_first,
            seed,
        )
        options["reset_after"] = flag("reset_after", reset_after)
        options["gate_activation"] = function("gate_activation", gate_activation)
        options["candidate_activation"] = function("candidate_activation", candidate_activation)
        options["clip"] = _clip(clip)
        options["layer_norm"] = flag("layer_norm", layer_norm)
        self._build(options, dtype_name(dtype))
