"""Recurrent decoder steps that attend to a source: three orders of cell and attention.

Each step is a `scan.Step`. Training scans it over the target with W = 1; decoding calls the
same function once for a token of each of W hypotheses.

Axes: see `encdec.types`. A is the width of the space in which scores are computed, and G is the
width of all gates of a cell together.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from encdec.ops.attention import additive_scores, dot_scores, masked_softmax
from encdec.ops.recurrence import CELLS, CellConstants, output, with_constants
from encdec.ops.scan import Matmul, Step, keep
from encdec.types import Array, Precision


class Source(NamedTuple):
    """The encoded source, as far as scores depend on it.

    Attributes:
      keys: float [B, S, A].
      v: float [A] for additive scores, None for dot products.
      mask: bool [B, S], True where the token is real.
    """

    keys: Array
    v: Array | None
    mask: Array


class Constants(NamedTuple):
    """Arrays that are the same at every time step.

    Attributes:
      source: the encoded source.
      biases: [G] each: of the second cell ("conditional"), or of each layer above the first
        ("luong"); empty for "bahdanau".
      cells: of each cell in the step; dropout masks are [B, W, hidden].
    """

    source: Source
    biases: tuple[Array, ...]
    cells: tuple[CellConstants, ...]


class InputFeedingCarry(NamedTuple):
    """The carry of Luong's decoder.

    Attributes:
      states: the state of each layer, arrays [B, W, hidden].
      vector: the last attentional vector h~(t-1), float [B, W, hidden].
    """

    states: tuple[Any, ...]
    vector: Array


def attend(matmul: Matmul, source: Source, h: Array, precision: Precision) -> tuple[Array, Array]:
    """alpha = softmax(score(h, keys)); c = sum_s alpha_s value_s (Bahdanau 2015, equations 5, 6).

    Args:
      matmul: knows "values" [B, S, 2 hidden], and "query" for additive scores.
      source: the encoded source.
      h: the state that asks, float [B, W, hidden].
      precision: of the scores.

    Returns:
      The context c [B, W, 2 hidden] and the attention alpha, float32 [B, W, S].
    """
    if source.v is None:
        scores = dot_scores(h, source.keys, precision)
    else:
        scores = additive_scores(matmul("query", h), source.keys, source.v, precision)
    attention = masked_softmax(keep(scores), source.mask[:, None])
    # The sum over s is a product with the values, so `scan` gives its gradient too.
    return matmul("values", attention), attention


def _bahdanau(
    matmul: Matmul, consts: Constants, state: Any, x: Array, *, cell: str, precision: Precision
) -> tuple[Any, tuple[Array, Array, Array]]:
    """c_t from h(t-1), then h_t = f(h(t-1), y(t-1), c_t) (Bahdanau 2015, appendix A.2.2).

    Args:
      matmul: knows the matrices of the cell, "context" [2 hidden, G], and what `attend` needs.
      consts: no biases, one cell.
      state: arrays [B, W, hidden].
      x: the projected embedding of y(t-1), float [B, W, G].

    Returns:
      The next state, and (h_t, c_t, attention).
    """
    context, attention = attend(matmul, consts.source, output(state), precision)
    x = x + matmul("context", context)
    state = CELLS[cell].step(with_constants(matmul, consts.cells[0]), state, x)
    return state, (output(state), context, attention)


def _conditional(
    matmul: Matmul, consts: Constants, state: Any, x: Array, *, cell: str, precision: Precision
) -> tuple[Any, tuple[Array, Array, Array]]:
    """h'_t = f(h(t-1), y(t-1)), c_t from h'_t, h_t = g(h'_t, c_t) (Sennrich 2017, section 2).

    Args:
      matmul: knows the matrices of f, those of g as "second/NAME", "context" [2 hidden, G], and
        what `attend` needs.
      consts: the bias of g, and the constants of the cells f and g.
      state: arrays [B, W, hidden].
      x: the projected embedding of y(t-1), float [B, W, G].

    Returns:
      The next state, and (h_t, c_t, attention).
    """
    constants_f, constants_g = consts.cells
    intermediate = CELLS[cell].step(with_constants(matmul, constants_f), state, x)
    context, attention = attend(matmul, consts.source, output(intermediate), precision)
    # g reads the context in place of an embedding, and continues from the state that f left.
    x = matmul("context", context) + consts.biases[0]
    matmul_g = with_constants(partial(_prefixed, matmul, "second"), constants_g)
    state = CELLS[cell].step(matmul_g, intermediate, x)
    return state, (output(state), context, attention)


def _luong(
    matmul: Matmul,
    consts: Constants,
    carry: InputFeedingCarry,
    x: tuple[Array, tuple[Array, ...]],
    *,
    cell: str,
    precision: Precision,
) -> tuple[InputFeedingCarry, tuple[Array, Array]]:
    """h_t from y(t-1) and h~(t-1), c_t from h_t, then h~_t = tanh(W_c [c_t; h_t]).

    Luong 2015, equation 5 and section 3.3 (input feeding).

    Args:
      matmul: knows the matrices of each layer as "LAYER/NAME", "feed" [hidden, G],
        "combine_context" and "combine_state" (the two halves of W_c), and what `attend` needs.
      consts: the bias of each layer above the first, and the constants of each layer's cell.
      carry: the states of all layers and h~(t-1).
      x: the projected embedding of y(t-1), float [B, W, G], and for each layer above the first
        the dropout mask of its input, broadcastable to [B, W, hidden].

    Returns:
      The next carry, and (h~_t, attention).
    """
    inputs, input_masks = x
    inputs = inputs + matmul("feed", carry.vector)
    states: list[Any] = []
    for layer, (state, constants) in enumerate(zip(carry.states, consts.cells, strict=True)):
        layer_matmul = partial(_prefixed, matmul, str(layer))
        if layer:  # a layer above the first reads the output of the layer below
            below = output(states[-1]) * input_masks[layer - 1]
            inputs = layer_matmul("kernel", below) + consts.biases[layer - 1]
        states.append(CELLS[cell].step(with_constants(layer_matmul, constants), state, inputs))
    h = output(states[-1])
    context, attention = attend(matmul, consts.source, h, precision)
    # W_c [c; h] = W_cc c + W_ch h.
    vector = jnp.tanh(matmul("combine_context", context) + matmul("combine_state", h))
    return InputFeedingCarry(tuple(states), vector), (vector, attention)


def _prefixed(matmul: Matmul, prefix: str, name: str, u: Array) -> Array:
    return matmul(f"{prefix}/{name}", u)


_STEPS: dict[str, Callable[..., Any]] = {
    "bahdanau": _bahdanau,
    "conditional": _conditional,
    "luong": _luong,
}


@cache  # because a scan compiles again for each new function
def step_of(attention_type: str, cell: str, precision: Precision) -> Step:
    """The decoder's time step.

    Args:
      attention_type: bahdanau, conditional or luong.
      cell: a name in `encdec.ops.recurrence.CELLS`.
      precision: of the attention scores; `matmul` makes all other products.
    """
    return partial(_STEPS[attention_type], cell=cell, precision=precision)
