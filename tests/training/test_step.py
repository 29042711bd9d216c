"""The training step: what it computes, and what must not change it."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.models import registry
from encdec.models.loss import batch_loss
from encdec.training.step import (
    TrainState,
    init_state,
    moving_average,
    scheduled_inputs,
    train_step,
)
from encdec.types import Batch, SpecialIds
from tests.batches import padded_batch

PAD, BOS, EOS, _ = SpecialIds()

B, S, T, V = 6, 5, 7, 11
CONFIGS: list[ModelConfig] = [
    Seq2SeqConfig(embed=3, hidden=4, dropout=0.0),
    AttentionConfig(embed=3, hidden=4, dropout=0.0),
    TransformerConfig(layers=1, width=8, feed_forward=12, heads=2, dropout=0.0),
]
SGD = optax.sgd(0.5)
CONFIG = TrainingConfig(label_smoothing=0.1, clip_norm=0)


def batch(seed: int = 0) -> Batch:
    """Sentences of many lengths, one of them empty."""
    rng = np.random.default_rng(seed)
    src, tgt = np.full((B, S), PAD, np.int32), np.full((B, T + 1), PAD, np.int32)
    for b in range(1, B):
        n, m = rng.integers(1, S), rng.integers(1, T)
        src[b, :n], src[b, n] = rng.integers(4, V, n), EOS
        tgt[b, 0], tgt[b, 1 : m + 1], tgt[b, m + 1] = BOS, rng.integers(4, V, m), EOS
    return padded_batch(src, tgt)


def fresh(model) -> TrainState:
    return init_state(registry.init(model, jax.random.key(1)), SGD, CONFIG)


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: type(config).__name__)
def start(request: pytest.FixtureRequest):
    model = registry.build(request.param, V, V)
    return model, fresh(model)


def step(model, **settings):
    return jax.jit(partial(train_step, model, SGD, replace(CONFIG, **settings)))


def assert_close(one: TrainState, other: TrainState) -> None:
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_step_goes_down_the_mean_gradient_a_token(start) -> None:
    """Optax's cross-entropy of whole distributions, over real tokens, by plain differentiation."""
    model, state = start
    src, _, tgt, _ = batch()
    real = (tgt[:, 1:] != PAD).astype(np.float32)

    def mean_loss(params):
        logits = model.apply({"params": params}, src, src != PAD, tgt[:, :-1])
        wanted = optax.smooth_labels(jax.nn.one_hot(tgt[:, 1:], V), 0.1)
        return (optax.softmax_cross_entropy(logits, wanted) * real).sum() / real.sum()

    loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(state.params)
    after, (sums, norm) = step(model)(state, batch(), jax.random.key(0))
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, gradient)
    assert_close(after, state._replace(params=expected))
    assert sums.tokens == real.sum()
    assert sums.loss / sums.tokens == pytest.approx(float(loss), rel=1e-5)
    assert norm == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
    assert after.step == 1


def test_a_long_gradient_is_cut_to_the_norm(start) -> None:
    model, state = start
    free, (_, norm) = step(model)(state, batch(), jax.random.key(0))
    cut, (_, told) = step(model, clip_norm=float(norm) / 3)(state, batch(), jax.random.key(0))
    assert norm == told
    expected = jax.tree.map(lambda p, q: p + (q - p) / 3, state.params, free.params)
    assert_close(cut, state._replace(params=expected))
    unchanged, _ = step(model, clip_norm=2 * float(norm))(state, batch(), jax.random.key(0))
    assert_close(unchanged, free)


def test_parts_are_the_whole_batch(start) -> None:
    model, state = start
    whole, sums = step(model)(state, batch(), jax.random.key(0))
    parts, summed = step(model, gradient_accumulation=3)(state, batch(), jax.random.key(0))
    assert_close(whole, parts)
    np.testing.assert_allclose(sums.sums, summed.sums, rtol=1e-5)


def test_empty_sentences_and_padding_weigh_nothing(start) -> None:
    model, state = start
    src, _, tgt, _ = batch()
    wider = padded_batch(np.pad(src, ((0, 2), (0, 3))), np.pad(tgt, ((0, 2), (0, 4))))
    one, sums = step(model)(state, batch(), jax.random.key(0))
    other, summed = step(model)(state, wider, jax.random.key(0))
    assert_close(one, other)
    np.testing.assert_allclose(sums.sums, summed.sums, rtol=1e-5)


def test_nothing_but_empty_sentences_changes_nothing(start) -> None:
    model, state = start
    nothing = jax.tree.map(np.zeros_like, batch())
    after, sums = step(model)(state, nothing, jax.random.key(0))
    assert_close(state, after)
    assert not any(jax.tree.leaves(sums))


def test_dropout_depends_on_the_key_and_the_step_alone() -> None:
    model = registry.build(Seq2SeqConfig(embed=3, hidden=4, dropout=0.5), V, V)
    state = fresh(model)
    run = step(model)
    loss = [
        float(run(state._replace(step=jnp.int32(n)), batch(), jax.random.key(k))[1].sums.loss)
        for n, k in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert loss[0] == loss[1]
    assert len(set(loss)) == 3


RECURRENT = CONFIGS[:2]


@pytest.mark.parametrize("config", RECURRENT, ids=lambda config: type(config).__name__)
def test_scheduled_sampling_draws_from_the_model(config: ModelConfig) -> None:
    """A decoder that only ever says token 7: what it draws is known."""
    model = registry.build(config, V, V)
    params = fresh(model).params
    params["logits"] = jax.tree.map(jnp.zeros_like, params["logits"])
    params["logits"]["bias"] = params["logits"]["bias"].at[7].set(100.0)
    draw = jax.jit(partial(scheduled_inputs, model, params))
    many = Batch(*(np.tile(side, (500, 1)) for side in batch()))
    truth, key = many.tgt[:, :-1], jax.random.key(3)
    np.testing.assert_array_equal(draw(many, jnp.float32(0), key), truth)
    every = np.where((np.arange(T) > 0) & (truth != PAD), 7, truth)
    np.testing.assert_array_equal(draw(many, jnp.float32(1), key), every)
    found = np.asarray(draw(many, jnp.float32(0.3), key))
    free = every != truth
    assert (found == 7)[free].mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(found[~free], truth[~free])


def test_scheduled_sampling_rises_with_the_steps() -> None:
    """Nothing is drawn in step 0; in the last the loss is that of inputs the model drew."""
    model = registry.build(RECURRENT[0], V, V)
    state = fresh(model)
    plain = step(model)(state, batch(), jax.random.key(0))[1]
    run = step(model, scheduled_sampling=1.0, max_steps=9)
    first = run(state, batch(), jax.random.key(0))[1]
    np.testing.assert_allclose(plain.sums, first.sums, rtol=1e-5)
    last = run(state._replace(step=jnp.int32(9)), batch(), jax.random.key(0))[1]
    key, own = jax.random.split(jax.random.fold_in(jax.random.key(0), 9))
    tgt_in = scheduled_inputs(model, state.params, batch(), jnp.float32(1), own)
    expected = batch_loss(model, state.params, batch(), 0.1, key, tgt_in)
    np.testing.assert_allclose(last.sums, expected, rtol=1e-4)
    assert float(last.sums.loss) != pytest.approx(float(first.sums.loss), rel=1e-4)


def test_a_moving_average_is_the_sum_of_its_weights() -> None:
    """average_n = sum_i w_i params_i, worked out by a loop; the first parameters are forgotten."""
    values, decay = [5.0, 1.0, -2.0, 4.0, 3.0], 0.3
    average, expected = {"a": jnp.float32(values[0])}, values[0]
    for n, value in enumerate(values[1:]):
        average = moving_average(average, {"a": jnp.float32(value)}, decay, jnp.int32(n))
        kept = min(decay, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * value
    assert float(average["a"]) == pytest.approx(expected, rel=1e-6)


def test_the_average_follows_the_parameters(start) -> None:
    model, state = start
    state = state._replace(average=jax.tree.map(jnp.copy, state.params))
    after, _ = step(model, ema_decay=0.9)(state, batch(), jax.random.key(0))
    assert_close(
        after._replace(params=after.average),
        state._replace(
            params=jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, state.params, after.params)
        ),
    )
