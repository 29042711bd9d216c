"""Recurrent cells, and the scan that runs one over time.

A cell's step adds what the last state brings to `x`, what the input brings: x_t = W e_t + b is
computed for all time steps in one matrix product before the scan.

Letters: see `encdec.types`; G = gates * hidden, the width of all gates together.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from encdec.types import Array

Matmul = Callable[[str, Array], Array]
"""matmul(name, u) = u @ weights[name]."""
Weights = dict[str, Array]


class Step(Protocol):
    """step(matmul, consts, carry, x) -> (carry, y): one time step over named products."""

    def __call__(self, matmul: Matmul, consts: Any, carry: Any, x: Any, /) -> tuple[Any, Any]: ...


# A matrix that meets a vector at each of T steps would, by plain differentiation, have its
# gradient accumulated in T small products. Here each step's vectors are kept, and the
# gradient is one product over all steps at once.
@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def scan(
    step: Step, reverse: bool, weights: Weights, consts: Any, carry: Any, xs: Any
) -> tuple[Any, Any]:
    """`jax.lax.scan` whose weights' gradients take one matrix product each.

    Args:
      step: static; see `Step`. It must use each name once, and weights through `matmul` alone.
      reverse: static; from the last time step to the first.
      weights: matrices [n, m], or [B, n, m] for products with an axis B.
      consts: arrays that every step sees.
      carry: the first state.
      xs: arrays with leading axis T.

    Returns:
      The last state, and each step's y with leading axis T.
    """

    def body(carry: Any, x: Any) -> tuple[Any, Any]:
        return step(lambda name, u: u @ weights[name], consts, carry, x)

    return jax.lax.scan(body, carry, xs, reverse=reverse)


def _scan_forward(
    step: Step, reverse: bool, weights: Weights, consts: Any, carry: Any, xs: Any
) -> tuple[Any, Any]:
    def run(consts: Any, carry: Any, xs: Any, nudges: Weights) -> tuple[Any, Any]:
        def body(carry: Any, x: Any) -> tuple[Any, Any]:
            x, nudge = x
            seen: Weights = {}

            def matmul(name: str, u: Array) -> Array:
                seen[name] = jax.lax.stop_gradient(u)
                return u @ weights[name] + nudge[name]

            carry, y = step(matmul, consts, carry, x)
            return carry, (y, seen)

        carry, (ys, seen) = jax.lax.scan(body, carry, (xs, nudges), reverse=reverse)
        return (carry, ys), seen

    nudges = _zero_products(step, weights, consts, carry, xs)
    out, pullback, seen = jax.vjp(run, consts, carry, xs, nudges, has_aux=True)
    return out, (pullback, seen, weights)


def _zero_products(step: Step, weights: Weights, consts: Any, carry: Any, xs: Any) -> Weights:
    """Zeros shaped like every step's products: a gradient with respect to them is theirs."""
    made: dict[str, jax.ShapeDtypeStruct] = {}

    def record(x: Any) -> None:
        def matmul(name: str, u: Array) -> Array:
            out = u @ weights[name]
            made[name] = jax.ShapeDtypeStruct(out.shape, out.dtype)
            return out

        step(matmul, consts, carry, x)

    jax.eval_shape(record, jax.tree.map(lambda x: x[0], xs))
    length = jax.tree.leaves(xs)[0].shape[0]
    return {name: jnp.zeros((length, *out.shape), out.dtype) for name, out in made.items()}


def _scan_backward(step: Step, reverse: bool, residuals: Any, cotangent: Any) -> tuple[Any, ...]:
    pullback, seen, weights = residuals
    consts, carry, xs, products = pullback(cotangent)

    def all_steps(weight: Array, name: str) -> Array:
        return jax.vmap(jnp.matmul, (0, None))(seen[name], weight)

    gradients = {
        name: jax.vjp(partial(all_steps, name=name), weight)[1](products[name])[0]
        for name, weight in weights.items()
    }
    return gradients, consts, carry, xs


scan.defvjp(_scan_forward, _scan_backward)


class LSTMState(NamedTuple):
    """c: the memory cell [..., hidden]. h: the output [..., hidden]."""

    c: Array
    h: Array


def simple_cell(matmul: Matmul, h: Array, x: Array) -> Array:
    """h_t = tanh(x_t + U h(t-1)) (Elman 1990).

    Args:
      matmul: with "recurrent" [hidden, hidden].
      h: [..., hidden]. x: [..., hidden].
    """
    return jnp.tanh(x + matmul("recurrent", h))


def gru_cell(matmul: Matmul, h: Array, x: Array) -> Array:
    """Gated recurrent unit (Cho 2014, equations 5 to 8).

    r, z = sigma(x^rz + U^rz h(t-1)); h~ = tanh(x^h + U (r * h(t-1))); h_t = z h(t-1) + (1 - z) h~

    Args:
      matmul: with "gates" [hidden, 2 hidden] and "candidate" [hidden, hidden].
      h: [..., hidden]. x: [..., 3 hidden], in the order r, z, candidate.
    """
    hidden = h.shape[-1]
    gates = jax.nn.sigmoid(x[..., : 2 * hidden] + matmul("gates", h))
    r, z = jnp.split(gates, 2, -1)
    candidate = jnp.tanh(x[..., 2 * hidden :] + matmul("candidate", r * h))
    return z * h + (1 - z) * candidate


def lstm_cell(matmul: Matmul, state: LSTMState, x: Array) -> LSTMState:
    """Long short-term memory with a forget gate (Gers 2000), as in Sutskever 2014.

    i, f, o = sigma(...); g = tanh(...); c_t = f c(t-1) + i g; h_t = o tanh(c_t)

    Args:
      matmul: with "recurrent" [hidden, 4 hidden].
      state: each [..., hidden]. x: [..., 4 hidden], in the order i, f, g, o.
    """
    i, f, g, o = jnp.split(x + matmul("recurrent", state.h), 4, -1)
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return LSTMState(c, jax.nn.sigmoid(o) * jnp.tanh(c))


class Cell(NamedTuple):
    """A recurrence: its step, the shapes of its matrices in units of hidden, and its gates."""

    step: Callable[[Matmul, Any, Array], Any]
    matrices: dict[str, int]
    gates: int


CELLS = {
    "simple": Cell(simple_cell, {"recurrent": 1}, 1),
    "gru": Cell(gru_cell, {"gates": 2, "candidate": 1}, 3),
    "lstm": Cell(lstm_cell, {"recurrent": 4}, 4),
}


def output(carry: Any) -> Array:
    """What a state shows to the outside: h [..., hidden]."""
    return carry.h if isinstance(carry, LSTMState) else carry


def initial(cell: str, h: Array) -> Any:
    """The state whose output is h [..., hidden]; an LSTM's memory cell begins at zero."""
    return LSTMState(jnp.zeros_like(h), h) if cell == "lstm" else h


def keep(mask: Array, new: Any, old: Any) -> Any:
    """The new state where the mask [...] is True, the old one elsewhere."""
    return jax.tree.map(lambda n, o: jnp.where(mask[..., None], n, o), new, old)


def with_dropout(matmul: Matmul, dropout_mask: Array | None) -> Matmul:
    """Products of u * dropout_mask; with one mask for all time steps this is recurrent dropout
    (Gal 2016, equation 7). Without a mask, the products themselves."""
    return matmul if dropout_mask is None else lambda name, u: matmul(name, u * dropout_mask)


def _masked_step(
    matmul: Matmul, dropout_mask: Array | None, carry: Any, x: tuple[Array, Array], *, cell: str
) -> tuple[Any, Array]:
    inputs, mask = x
    carry = keep(mask, CELLS[cell].step(with_dropout(matmul, dropout_mask), carry, inputs), carry)
    return carry, output(carry)


_STEPS = {cell: partial(_masked_step, cell=cell) for cell in CELLS}


def recur(
    cell: str,
    weights: Weights,
    carry: Any,
    inputs: Array,
    mask: Array,
    *,
    dropout_mask: Array | None = None,
    reverse: bool = False,
) -> tuple[Any, Array]:
    """Runs a cell over time. Padding never changes a state.

    Backwards it is a true reversal within each sentence: the padding at the end is passed over
    before the first real token is met.

    Args:
      cell: "simple", "gru" or "lstm".
      weights: the cell's matrices.
      carry: the first state, each array [B, hidden].
      inputs: x for each time step, [T, B, G].
      mask: bool [T, B], True where the token is real.
      dropout_mask: what the last state is multiplied by on its way into the cell, [B, hidden].
      reverse: from the last token to the first.

    Returns:
      The state after the last token read, and the outputs h [T, B, hidden].
    """
    return scan(_STEPS[cell], reverse, weights, dropout_mask, carry, (inputs, mask))
