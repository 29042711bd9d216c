"""Weights of `torch.nn.RNN`, `LSTM` and `GRU` as those of our recurrent layers."""

from collections.abc import Mapping

import numpy as np

from encdec.ops.recurrence import CELLS
from encdec.types import InputError, Params


def recurrent_params(
    weights: Mapping[str, np.ndarray], cell: str, layer: int = 0, *, reverse: bool = False
) -> Params:
    """The parameters of one layer and direction, as `encdec.models.layers.Recurrent` has them.

    Gates are in the same order in both libraries, and matrices are transposed. PyTorch has two
    biases: where a cell of ours has one, it is their sum.

    Args:
      weights: `module.state_dict()` as NumPy arrays, float32: `weight_ih_l0` [G, inputs],
        `weight_hh_l0` [G, hidden], and unless bias=False, `bias_ih_l0` and `bias_hh_l0` [G].
      cell: "simple" for RNN with tanh, "lstm", or "gru-reset-after" for GRU.
      layer: which layer, from 0.
      reverse: the direction from right to left, of a bidirectional module.

    Returns:
      kernel [inputs, G], recurrent [hidden, G], bias [G], and for "gru-reset-after" recurrent_bias
      [G], float32.

    Raises:
      InputError: the cell has no counterpart, an array is missing, or the shapes are those of
        another cell.
    """
    if cell not in ("simple", "lstm", "gru-reset-after"):
        raise InputError(
            f"cell = {cell!r} has no counterpart in PyTorch: simple is its RNN, lstm its LSTM, and "
            "gru-reset-after its GRU"
        )
    mark = f"l{layer}_reverse" if reverse else f"l{layer}"
    missing = [name for name in (f"weight_ih_{mark}", f"weight_hh_{mark}") if name not in weights]
    if missing:
        raise InputError(f"the weights have no {missing[0]} ({', '.join(weights)})")
    kernel, recurrent = (np.asarray(weights[f"weight_{which}_{mark}"]) for which in ("ih", "hh"))
    width, gates = recurrent.shape[1], CELLS[cell].gates
    if recurrent.shape[0] != gates * width or kernel.shape[0] != gates * width:
        raise InputError(
            f"weight_hh_{mark} has the shape {list(recurrent.shape)}: a layer of cell {cell} has "
            f"[{gates} hidden, hidden]"
        )
    zero = np.zeros(gates * width, np.float32)
    of_inputs, of_state = (
        np.asarray(weights.get(f"bias_{which}_{mark}", zero)) for which in ("ih", "hh")
    )
    params = {"kernel": kernel.T, "recurrent": recurrent.T}
    if CELLS[cell].has_recurrent_bias:
        return params | {"bias": of_inputs, "recurrent_bias": of_state}
    return params | {"bias": of_inputs + of_state}
