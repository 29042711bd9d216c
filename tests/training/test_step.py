"""The training step: what it computes, and what must not change it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from encdec import models
from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig, TransformerConfig
from encdec.training.step import TrainState, init_state, train_step
from encdec.types import BOS, EOS, PAD, Batch

B, S, T, V = 6, 5, 7, 11
CONFIGS: list[ModelConfig] = [
    Seq2SeqConfig(embed=3, hidden=4, dropout=0.0),
    AttentionConfig(embed=3, hidden=4, dropout=0.0),
    TransformerConfig(layers=1, width=8, feed_forward=12, heads=2, dropout=0.0),
]
SGD = optax.sgd(0.5)


def batch(seed: int = 0) -> Batch:
    """Sentences of many lengths, one of them empty."""
    rng = np.random.default_rng(seed)
    src, tgt = np.full((B, S), PAD, np.int32), np.full((B, T + 1), PAD, np.int32)
    for b in range(1, B):
        n, m = rng.integers(1, S), rng.integers(1, T)
        src[b, :n], src[b, n] = rng.integers(4, V, n), EOS
        tgt[b, 0], tgt[b, 1 : m + 1], tgt[b, m + 1] = BOS, rng.integers(4, V, m), EOS
    return Batch(src, tgt)


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: type(config).__name__)
def start(request: pytest.FixtureRequest):
    model = models.build(request.param, V, V)
    return model, init_state(model, SGD, jax.random.key(1))


def step(model, accumulate=1):
    return jax.jit(partial(train_step, model, SGD, 0.1, accumulate))


def assert_close(one: TrainState, other: TrainState) -> None:
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_step_goes_down_the_mean_gradient_a_token(start) -> None:
    """Optax's cross-entropy of whole distributions, over real tokens, by plain differentiation."""
    model, state = start
    src, tgt = batch()
    real = (tgt[:, 1:] != PAD).astype(np.float32)

    def mean_loss(params):
        logits = model.apply({"params": params}, src, src != PAD, tgt[:, :-1])
        wanted = optax.smooth_labels(jax.nn.one_hot(tgt[:, 1:], V), 0.1)
        return (optax.softmax_cross_entropy(logits, wanted) * real).sum() / real.sum()

    loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(state.params)
    after, sums = step(model)(state, batch(), jax.random.key(0))
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, gradient)
    assert_close(after, state._replace(params=expected))
    assert sums.tokens == real.sum()
    assert sums.loss / sums.tokens == pytest.approx(float(loss), rel=1e-5)
    assert after.step == 1


def test_parts_are_the_whole_batch(start) -> None:
    model, state = start
    whole, sums = step(model)(state, batch(), jax.random.key(0))
    parts, summed = step(model, 3)(state, batch(), jax.random.key(0))
    assert_close(whole, parts)
    np.testing.assert_allclose(sums, summed, rtol=1e-5)


def test_empty_sentences_and_padding_weigh_nothing(start) -> None:
    model, state = start
    src, tgt = batch()
    wider = Batch(np.pad(src, ((0, 2), (0, 3))), np.pad(tgt, ((0, 2), (0, 4))))
    one, sums = step(model)(state, batch(), jax.random.key(0))
    other, summed = step(model)(state, wider, jax.random.key(0))
    assert_close(one, other)
    np.testing.assert_allclose(sums, summed, rtol=1e-5)


def test_nothing_but_empty_sentences_changes_nothing(start) -> None:
    model, state = start
    nothing = jax.tree.map(np.zeros_like, batch())
    after, sums = step(model)(state, nothing, jax.random.key(0))
    assert_close(state, after)
    assert not any(sums)


def test_dropout_depends_on_the_key_and_the_step_alone() -> None:
    model = models.build(Seq2SeqConfig(embed=3, hidden=4, dropout=0.5), V, V)
    state = init_state(model, SGD, jax.random.key(1))
    run = step(model)
    loss = [
        float(run(state._replace(step=jnp.int32(n)), batch(), jax.random.key(k))[1].loss)
        for n, k in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert loss[0] == loss[1]
    assert len(set(loss)) == 3
