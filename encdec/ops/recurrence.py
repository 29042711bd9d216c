"""Recurrent cells, and how one runs over time.

A cell adds its recurrent products U h(t-1) to an input x_t = W e_t + b, which the caller computes
for all time steps in one matrix product before the scan.

Axes: see `encdec.types`. G is the width of all gates of a cell together, gates * hidden.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.ops.scan import Matmul, Weights, keep, scan
from encdec.types import Array, Precision


class CellConstants(NamedTuple):
    """What a cell needs besides its matrices; the same at every time step.

    Attributes:
      dropout_mask: float, broadcastable to the state; 0 or 1 / (1 - rate). One mask for all time
        steps makes this recurrent dropout (Gal 2016, equation 7). None for no dropout.
      recurrent_bias: float [n hidden], added to the product with the matrix "recurrent"; None for a
        cell without one.
    """

    dropout_mask: Array | None = None
    recurrent_bias: Array | None = None


NO_CONSTANTS = CellConstants()
"""Neither dropout nor a bias."""


class LSTMState(NamedTuple):
    """The state of an LSTM.

    Attributes:
      c: the memory cell, float [..., hidden].
      h: the output, float [..., hidden].
    """

    c: Array
    h: Array


def simple_cell(matmul: Matmul, h: Array, x: Array) -> Array:
    """h_t = tanh(x_t + U h(t-1)) (Elman 1990).

    Args:
      matmul: knows "recurrent", U [hidden, hidden].
      h: h(t-1), float [..., hidden].
      x: x_t, float [..., hidden].
    """
    return jnp.tanh(keep(x + matmul("recurrent", h)))


def gru_cell(matmul: Matmul, h: Array, x: Array) -> Array:
    """Gated recurrent unit (Cho 2014, equations 5 to 8).

    r, z = sigma(x^rz + U^rz h(t-1)); h~ = tanh(x^h + U (r * h(t-1))); h_t = z h(t-1) + (1 - z) h~

    Args:
      matmul: knows "gates", U^rz [hidden, 2 hidden], and "candidate", U [hidden, hidden].
      h: h(t-1), float [..., hidden].
      x: x_t, float [..., 3 hidden], in the order r, z, candidate.
    """
    hidden = h.shape[-1]
    gates = jax.nn.sigmoid(keep(x[..., : 2 * hidden] + matmul("gates", h)))
    r, z = jnp.split(gates, 2, -1)
    candidate = jnp.tanh(keep(x[..., 2 * hidden :] + matmul("candidate", r * h)))
    return z * h + (1 - z) * candidate


def gru_reset_after_cell(matmul: Matmul, h: Array, x: Array) -> Array:
    """Gated recurrent unit as PyTorch, Keras and cuDNN have it: r acts after the product.

    r, z = sigma(x^rz + u^rz); h~ = tanh(x^h + r * u^h); h_t = z h(t-1) + (1 - z) h~,
    where u = U h(t-1) + b' has a bias of its own.

    Args:
      matmul: knows "recurrent", U [hidden, 3 hidden], and adds b'.
      h: h(t-1), float [..., hidden].
      x: x_t, float [..., 3 hidden], in the order r, z, candidate.
    """
    x_r, x_z, x_h = jnp.split(x, 3, -1)
    u_r, u_z, u_h = jnp.split(matmul("recurrent", h), 3, -1)
    r, z = jax.nn.sigmoid(x_r + u_r), jax.nn.sigmoid(x_z + u_z)
    return z * h + (1 - z) * jnp.tanh(x_h + r * u_h)


def lstm_cell(matmul: Matmul, state: LSTMState, x: Array) -> LSTMState:
    """Long short-term memory with a forget gate (Gers 2000), as used by Sutskever 2014.

    i, f, o = sigma(...); g = tanh(...); c_t = f c(t-1) + i g; h_t = o tanh(c_t),
    where the dots stand for the parts of x_t + U h(t-1).

    Args:
      matmul: knows "recurrent", U [hidden, 4 hidden].
      state: c(t-1) and h(t-1).
      x: x_t, float [..., 4 hidden], in the order i, f, g, o.
    """
    i, f, g, o = jnp.split(keep(x + matmul("recurrent", state.h)), 4, -1)
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return LSTMState(c, jax.nn.sigmoid(o) * jnp.tanh(c))


class Cell(NamedTuple):
    """A recurrent cell.

    Attributes:
      step: (matmul, state, x) -> state.
      matrices: for each matrix [hidden, n hidden] that the step uses, the number n.
      bias: what the bias of each part [hidden] of x_t starts from, in the order of the parts.
      from_output: h [..., hidden] -> the state whose output is h, with nothing else in it.
      has_recurrent_bias: whether the product with "recurrent" has a bias, zero at first.
    """

    step: Callable[[Matmul, Any, Array], Any]
    matrices: dict[str, int]
    bias: tuple[float, ...]
    from_output: Callable[[Array], Any] = lambda h: h
    has_recurrent_bias: bool = False

    @property
    def gates(self) -> int:
        """The width of x_t in units of hidden."""
        return len(self.bias)


CELLS = {
    "simple": Cell(simple_cell, {"recurrent": 1}, (0.0,)),
    "gru": Cell(gru_cell, {"gates": 2, "candidate": 1}, (0.0, 0.0, 0.0)),
    "gru-reset-after": Cell(
        gru_reset_after_cell, {"recurrent": 3}, (0.0, 0.0, 0.0), has_recurrent_bias=True
    ),
    # The forget gate starts open (Jozefowicz 2015); the memory cell starts at zero.
    "lstm": Cell(
        lstm_cell,
        {"recurrent": 4},
        (0.0, 1.0, 0.0, 0.0),
        lambda h: LSTMState(jnp.zeros_like(h), h),
    ),
}
"""All cells. A new one is an entry here, and a name in `encdec.config.models.Cell`."""


def output(state: Any) -> Array:
    """The output h [..., hidden] of a state: its field `h`, or the state itself."""
    return state.h if hasattr(state, "h") else state


def initial(cell: str, h: Array) -> Any:
    """The state of a cell whose output is h [..., hidden]."""
    return CELLS[cell].from_output(h)


def select(mask: Array, new: Any, old: Any) -> Any:
    """The new state where the mask [...] is True, and the old state elsewhere."""
    return jax.tree.map(lambda n, o: jnp.where(mask[..., None], n, o), new, old)


def with_constants(matmul: Matmul, constants: CellConstants) -> Matmul:
    """The products of a cell: (u * dropout_mask) @ weights[name], plus the recurrent bias."""
    dropout_mask, bias = constants

    def product(name: str, u: Array) -> Array:
        dropped = u if dropout_mask is None else u * dropout_mask
        result = matmul(name, dropped)
        return result + bias if bias is not None and name == "recurrent" else result

    return product


def _masked_step(
    matmul: Matmul, constants: CellConstants, state: Any, x: tuple[Array, Array], *, cell: str
) -> tuple[Any, Array]:
    """A cell's step that leaves the state of a padded position unchanged."""
    inputs, mask = x
    new = CELLS[cell].step(with_constants(matmul, constants), state, inputs)
    state = select(mask, new, state)
    return state, output(state)


# `scan` is compiled again for each new function object, so each cell has one step for good.
_STEPS = {cell: partial(_masked_step, cell=cell) for cell in CELLS}


def unroll(
    cell: str,
    weights: Weights,
    state: Any,
    inputs: Array,
    mask: Array,
    *,
    constants: CellConstants = NO_CONSTANTS,
    reverse: bool = False,
    precision: Precision = "float32",
) -> tuple[Any, Array]:
    """Runs a cell over time. Padding never changes the state.

    With `reverse`, each sentence is read from its last real token to its first: the padding after
    the last token comes first in the scan and is skipped.

    Args:
      cell: a name in `CELLS`.
      weights: the matrices of the cell; see `Cell.matrices`.
      state: the initial state, each array float [B, hidden].
      inputs: x_t, float [T, B, G].
      mask: bool [T, B], True where the token is real.
      constants: dropout mask [B, hidden] and recurrent bias, if any.
      reverse: whether to read from right to left.
      precision: of the products with the matrices; the state is float32.

    Returns:
      The state after the last real token that was read, and the outputs h_t [T, B, hidden].
    """
    return scan(_STEPS[cell], reverse, precision, weights, constants, state, (inputs, mask))
