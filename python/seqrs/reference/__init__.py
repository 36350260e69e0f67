"""The recurrent layers in NumPy, f64, slow, written to be read beside the textbook.

This package is the arbiter: it imports nothing but NumPy, shares no line with the compiled one,
and is itself checked against finite differences, PyTorch, and the textbook's equations. Each cell
is one short file, `forward()` directly above `backward()`; `sequence.py` is everything else.

>>> from seqrs import reference
>>> lstm = reference.LSTM(4, 8, bidirectional=True)
>>> y, (h, c), tape = lstm.forward(x, lengths=[5, 3])      # x (2, 5, 4) -> y (2, 5, 16)
>>> grads = lstm.backward(tape, dy)                        # .x, .state, .params
"""

from .gru import GRU
from .lstm import LSTM
from .rnn import RNN
from .sequence import Gradients, Tape

__all__ = ["GRU", "LSTM", "RNN", "Gradients", "Tape"]
