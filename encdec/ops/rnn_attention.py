"""Recurrent steps that look back at a source: three orders of cell and attention.

Each is a `recurrence.Step`: the same function is scanned over a target (W = 1) in training and
takes one token of each of W hypotheses in decoding. Letters: see `encdec.types`; A is the width
that scores are taken in, G a cell's gates together.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from encdec.ops.attention import additive_scores, dot_scores, masked_softmax
from encdec.ops.recurrence import CELLS, Matmul, output, with_dropout
from encdec.types import Array


class Source(NamedTuple):
    """What is scored. keys [B, S, A]; v [A], or None for a product score; mask [B, S]."""

    keys: Array
    v: Array | None
    mask: Array


class Constants(NamedTuple):
    """What is the same at every time step.

    Attributes:
      source: what is scored.
      biases: [G] each: of the second cell (conditional), or of each layer above the first (luong).
      dropout_masks: for each cell in a step, a mask of its last state [B, W, hidden], or None.
    """

    source: Source
    biases: tuple[Array, ...]
    dropout_masks: tuple[Array | None, ...]


class InputFeedingCarry(NamedTuple):
    """What Luong's decoder carries: each layer's state, and the attentional vector, [B, W, h]."""

    carries: tuple[Any, ...]
    vector: Array


def attend(matmul: Matmul, source: Source, h: Array) -> tuple[Array, Array]:
    """alpha = softmax(score(h, keys)); context = sum_s alpha_s value_s (Bahdanau 2015, eq. 5, 6).

    Args:
      matmul: with "values", and "query" for the additive score.
      source: what is scored.
      h: [B, W, hidden].

    Returns:
      context [B, W, 2 hidden] and weights float32 [B, W, S].
    """
    if source.v is None:
        scores = dot_scores(h, source.keys)
    else:
        scores = additive_scores(matmul("query", h), source.keys, source.v)
    weights = masked_softmax(scores.astype(jnp.float32), source.mask[:, None])
    return matmul("values", weights.astype(h.dtype)), weights


def _bahdanau(
    matmul: Matmul, consts: Constants, carry: Any, x: Array, *, cell: str
) -> tuple[Any, tuple[Array, Array, Array]]:
    """c_t from h(t-1), then h_t = f(h(t-1), y(t-1), c_t) (Bahdanau 2015, appendix A.2.2).

    Args:
      matmul: with the cell's matrices, "context", and what `attend` needs.
      consts: one share.
      carry: the state [B, W, hidden].
      x: projected embeddings of the last tokens, [B, W, G].

    Returns:
      The state, and (h_t, context, weights).
    """
    context, weights = attend(matmul, consts.source, output(carry))
    x = x + matmul("context", context)
    carry = CELLS[cell].step(with_dropout(matmul, consts.dropout_masks[0]), carry, x)
    return carry, (output(carry), context, weights)


def _conditional(
    matmul: Matmul, consts: Constants, carry: Any, x: Array, *, cell: str
) -> tuple[Any, tuple[Array, Array, Array]]:
    """h'_t = f(h(t-1), y(t-1)), c_t from h'_t, h_t = g(h'_t, c_t) (Sennrich 2017, section 4.1).

    Args:
      matmul: with the first cell's matrices, the second's as "second/name", "context", and what
        `attend` needs.
      consts: the second cell's bias, and two dropout_masks.
      carry, x: as in `_bahdanau`.

    Returns:
      The state, and (h_t, context, weights).
    """
    first, second = consts.dropout_masks
    between = CELLS[cell].step(with_dropout(matmul, first), carry, x)
    context, weights = attend(matmul, consts.source, output(between))
    x = matmul("context", context) + consts.biases[0]
    of_second = with_dropout(partial(_named, matmul, "second"), second)
    carry = CELLS[cell].step(of_second, between, x)
    return carry, (output(carry), context, weights)


def _luong(
    matmul: Matmul,
    consts: Constants,
    carry: InputFeedingCarry,
    x: tuple[Array, tuple[Array, ...]],
    *,
    cell: str,
) -> tuple[InputFeedingCarry, tuple[Array, Array]]:
    """h_t from the last token and the fed attentional vector, then c_t from h_t, then
    h~_t = tanh(W_c [c_t; h_t]) (Luong 2015, equation 5, section 3.3).

    Args:
      matmul: with each layer's matrices as "layer/name", "feed", "combine_context",
        "combine_state", and what `attend` needs.
      consts: biases of the layers above the first, a share for each layer.
      carry: all layers' states and the last attentional vector.
      x: projected embeddings [B, W, G], and for each layer above the first what its input is
        multiplied by (dropout), [B, W, hidden].

    Returns:
      The states, and (h~_t, weights).
    """
    inputs, masks = x
    inputs = inputs + matmul("feed", carry.vector)
    carries: list[Any] = []
    for layer, (state, dropout_mask) in enumerate(
        zip(carry.carries, consts.dropout_masks, strict=True)
    ):
        of_layer = partial(_named, matmul, str(layer))
        if layer:
            below = output(carries[-1]) * masks[layer - 1]
            inputs = of_layer("kernel", below) + consts.biases[layer - 1]
        carries.append(CELLS[cell].step(with_dropout(of_layer, dropout_mask), state, inputs))
    h = output(carries[-1])
    context, weights = attend(matmul, consts.source, h)
    vector = jnp.tanh(matmul("combine_context", context) + matmul("combine_state", h))
    return InputFeedingCarry(tuple(carries), vector), (vector, weights)


def _named(matmul: Matmul, owner: str, name: str, u: Array) -> Array:
    return matmul(f"{owner}/{name}", u)


def _for_each_cell(step: Callable[..., Any]) -> dict[str, Any]:
    return {cell: partial(step, cell=cell) for cell in CELLS}


STEPS = {
    "bahdanau": _for_each_cell(_bahdanau),
    "conditional": _for_each_cell(_conditional),
    "luong": _for_each_cell(_luong),
}
"""STEPS[order][cell]: made once, since a scan is compiled anew for each new function."""
