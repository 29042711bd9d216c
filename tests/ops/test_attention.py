import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from encdec.ops.attention import (
    additive_scores,
    dot_product_attention_weights,
    dot_scores,
    masked_softmax,
)
from tests import oracles

B, Q, S, A, H = 2, 3, 5, 4, 7


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_scores_are_loops_over_pairs() -> None:
    queries, keys, v = arrays((B, Q, A), (B, S, A), (A,))
    additive, dot = additive_scores(queries, keys, v), dot_scores(queries, keys)
    for b in range(B):
        for q in range(Q):
            for s in range(S):
                expected = sum(v * np.tanh(queries[b, q] + keys[b, s]))
                np.testing.assert_allclose(additive[b, q, s], expected, rtol=1e-5, atol=1e-6)
                expected = sum(queries[b, q] * keys[b, s])
                np.testing.assert_allclose(dot[b, q, s], expected, rtol=1e-5, atol=1e-6)


def test_scaled_dot_product_head_by_head() -> None:
    queries, keys = arrays((B, Q, H, A), (B, S, H, A))
    mask = np.random.default_rng(1).random((B, 1, Q, S)) < 0.6
    mask[..., 0] = True
    weights = dot_product_attention_weights(queries, keys, mask)
    for b in range(B):
        for h in range(H):
            scores = queries[b, :, h] @ keys[b, :, h].T / 2  # sqrt(4)
            expected = oracles.softmax(np.where(mask[b, 0], scores, -np.inf))
            np.testing.assert_allclose(weights[b, h], expected, rtol=1e-5, atol=1e-6)


def test_softmax_gives_weight_to_real_tokens_only() -> None:
    (scores,) = arrays((Q, S))
    scores *= 1e30  # as large as it gets
    mask = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    weights = masked_softmax(scores, mask)
    np.testing.assert_allclose(weights.sum(-1), [1, 0, 1], rtol=1e-6)
    assert (np.asarray(weights)[~mask] == 0).all()
    gradient = jax.grad(lambda s: (masked_softmax(s, mask) ** 2).sum())(scores / 1e30)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~mask] == 0).all()


def test_gradients_against_finite_differences() -> None:
    queries, keys, v = arrays((B, Q, A), (B, S, A), (A,))
    mask = np.arange(S) < np.array([[[2]], [[5]]])

    def through(queries, keys, v):
        additive = masked_softmax(additive_scores(queries, keys, v), mask)
        dot = masked_softmax(dot_scores(queries, keys), mask)
        return jnp.sin(3 * additive).sum() + (dot**2).sum()

    check_grads(jax.jit(through), (queries, keys, v), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_scaled_dot_gradients_against_finite_differences() -> None:
    queries, keys = arrays((B, Q, H, A), (B, S, H, A))
    mask = np.arange(S) < np.array([[[[2]]], [[[5]]]])

    def through(queries, keys):
        return jnp.sin(3 * dot_product_attention_weights(queries, keys, mask)).sum()

    check_grads(jax.jit(through), (queries, keys), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)
