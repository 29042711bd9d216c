from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.ops import recurrence
from encdec.ops.recurrence import CELLS, CellConstants, unroll
from tests import oracles

T, B, H = 5, 3, 4
LENGTHS = (5, 2, 0)


def problem(cell: str, seed: int = 0):
    """Weights, initial state, inputs and mask; the third sentence is empty."""
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(size=(H, gates * H)).astype(np.float32)
        for name, gates in CELLS[cell].matrices.items()
    }
    h, c = rng.normal(size=(2, B, H)).astype(np.float32)
    carry = recurrence.LSTMState(c, h) if cell == "lstm" else h
    x = rng.normal(size=(T, B, CELLS[cell].gates * H)).astype(np.float32)
    mask = np.arange(T)[:, None] < np.array(LENGTHS)
    return weights, carry, x, mask


def constants(cell: str, dropout_mask: np.ndarray | None = None) -> CellConstants:
    """With the recurrent bias of a cell that has one."""
    if not CELLS[cell].has_recurrent_bias:
        return CellConstants(dropout_mask)
    width = CELLS[cell].matrices["recurrent"] * H
    bias = np.random.default_rng(5).normal(size=width).astype(np.float32)
    return CellConstants(dropout_mask, bias)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_unroll_is_a_loop_over_real_tokens(cell: str, reverse: bool) -> None:
    weights, carry, x, mask = problem(cell)
    run = jax.jit(partial(unroll, cell, reverse=reverse, constants=constants(cell)))
    last, outputs = run(weights, carry, x, mask)
    weights["recurrent_bias"] = constants(cell).recurrent_bias
    for b, length in enumerate(LENGTHS):
        state = (carry.c[b], carry.h[b]) if cell == "lstm" else carry[b]
        steps = range(length)
        for t in reversed(steps) if reverse else steps:
            state = oracles.cell_step(cell, weights, state, x[t, b])
            np.testing.assert_allclose(outputs[t, b], oracles.output(state), atol=2e-6)
        np.testing.assert_allclose(
            np.stack([leaf[b] for leaf in jax.tree.leaves(last)]),
            np.stack(state if cell == "lstm" else [state]),
            atol=2e-6,
        )


@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_dropout_mask_scales_the_rows_of_the_matrices(cell: str) -> None:
    """(u * s) @ M = u @ (s[:, None] * M)."""
    weights, carry, x, mask = problem(cell)
    dropout_mask = np.random.default_rng(7).choice([0.0, 2.0], (B, H)).astype(np.float32)
    run = jax.jit(partial(unroll, cell, constants=constants(cell, dropout_mask)))
    _, outputs = run(weights, carry, x, mask)
    for b, length in enumerate(LENGTHS):
        state = (carry.c[b], carry.h[b]) if cell == "lstm" else carry[b]
        scaled = {name: dropout_mask[b][:, None] * w for name, w in weights.items()}
        scaled["recurrent_bias"] = constants(cell).recurrent_bias
        for t in range(length):
            state = oracles.cell_step(cell, scaled, state, x[t, b])
            np.testing.assert_allclose(outputs[t, b], oracles.output(state), atol=2e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_plain_differentiation(cell: str) -> None:
    weights, carry, x, mask = problem(cell)
    target = np.random.default_rng(9).normal(size=(T, B, H)).astype(np.float32)

    def plain(weights, carry, x, consts):
        def matmul(name, u):
            product = jnp.matmul(u, weights[name], precision="highest")
            return product if consts.recurrent_bias is None else product + consts.recurrent_bias

        def body(carry, inputs):
            x, m = inputs
            new = CELLS[cell].step(matmul, carry, x)
            carry = jax.tree.map(lambda n, o: jnp.where(m[:, None], n, o), new, carry)
            return carry, carry.h if cell == "lstm" else carry

        last, outputs = jax.lax.scan(body, carry, (x, mask))
        return (outputs * target).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(last))

    def ours(weights, carry, x, consts):
        last, outputs = unroll(cell, weights, carry, x, mask, constants=consts)
        return (outputs * target).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(last))

    arguments = (weights, carry, x, constants(cell))
    expected = jax.jit(jax.grad(plain, (0, 1, 2, 3)))(*arguments)
    gradients = jax.jit(jax.grad(ours, (0, 1, 2, 3)))(*arguments)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), gradients, expected)


# Arrays [T, B, H]. simple: x + u and h. gru: r, z and the candidate before their functions, the
# state, and what is multiplied, h and r * h. gru-reset-after: x and u of three parts, the state and
# what is multiplied. lstm: the four gates before their functions, c and h.
KEPT = {"simple": 1 + 1, "gru": 3 + 1 + 2, "gru-reset-after": 3 + 3 + 1 + 1, "lstm": 4 + 1 + 1}


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_kept_of_all_steps_for_the_gradient(cell: str) -> None:
    weights, carry, x, mask = problem(cell)

    def run(weights, carry, x):
        return unroll(cell, weights, carry, x, mask, constants=constants(cell))

    shapes = jax.eval_shape(lambda *args: jax.vjp(run, *args)[1], weights, carry, x)
    kept = [leaf for leaf in jax.tree.leaves(shapes) if leaf.shape[:1] == (T,)]
    floats = sum(leaf.size for leaf in kept if leaf.dtype != bool)
    assert floats == KEPT[cell] * T * B * H
    # The mask has one entry for each token, not one for each hidden unit.
    assert all(leaf.size == T * B for leaf in kept if leaf.dtype == bool)


@pytest.mark.parametrize("cell", CELLS)
def test_no_product_is_computed_again_for_the_gradient(cell: str) -> None:
    """Each matrix is in three: that of the values, and those of the gradients of both factors."""
    weights, carry, x, mask = problem(cell)

    def loss(weights, carry, x):
        return unroll(cell, weights, carry, x, mask, constants=constants(cell))[1].sum()

    program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(weights, carry, x).as_text()
    assert program.count("stablehlo.dot_general") == 3 * len(weights)
