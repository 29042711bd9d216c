"""Roles of parameters, low-rank additions, and steps that train only some."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from encdec.config import (
    AttentionConfig,
    FineTuningConfig,
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.config.presets import preset
from encdec.models import registry
from encdec.models.loss import batch_loss
from encdec.runs.checkpoints import flat
from encdec.training.fine_tuning import (
    LowRank,
    Roles,
    assign_roles,
    input_axes,
    merge,
    partition,
    split_axes,
    trainable_count,
)
from encdec.training.optimizer import WEIGHT_DECAY_MASKS, optimizer
from encdec.training.step import TrainState, init_state, train_step
from encdec.types import Batch, InputError, Params, SpecialIds
from tests.batches import padded_batch

PAD, BOS, EOS, _ = SpecialIds()

B, S, T, V = 6, 5, 7, 11
SMALL = TransformerConfig(layers=1, width=8, feed_forward=12, heads=2, dropout=0.0)
MODEL = registry.build(SMALL, V, V)
LORA = FineTuningConfig(lora_rank=2, lora_alpha=6.0)
TRAINING = TrainingConfig(
    clip_norm=0.5, learning_rate=0.1, warmup=0, optimizer="adamw", weight_decay=0.1, ema_decay=0.9
)


def roles(config: FineTuningConfig, model=MODEL) -> Roles | None:
    return assign_roles(config, registry.abstract(model), registry.split_axes(model))


@pytest.fixture(scope="module")
def params() -> Params:
    """Parameters whose biases and scales are not the initial zeros and ones."""
    rng = np.random.default_rng(0)

    def noisy(p: jax.Array) -> jax.Array:
        return p + jnp.asarray(0.1 * rng.normal(size=p.shape), jnp.float32)

    return jax.tree.map(noisy, registry.init(MODEL, jax.random.key(1)))


def batch() -> Batch:
    """Sentences of many lengths, one of them empty."""
    rng = np.random.default_rng(0)
    src, tgt = np.full((B, S), PAD, np.int32), np.full((B, T + 1), PAD, np.int32)
    for b in range(1, B):
        n, m = rng.integers(1, S), rng.integers(1, T)
        src[b, :n], src[b, n] = rng.integers(4, V, n), EOS
        tgt[b, 0], tgt[b, 1 : m + 1], tgt[b, m + 1] = BOS, rng.integers(4, V, m), EOS
    return padded_batch(src, tgt)


def step(roles: Roles | None, state: TrainState, **settings) -> tuple[TrainState, float]:
    config = replace(TRAINING, **settings)
    run = jax.jit(partial(train_step, MODEL, optimizer(config), config, roles=roles))
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
        after, report = run(state, batch(), jax.random.key(0))
    return after, float(report.gradient_norm)


def assert_close(one: Params, other: Params, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# --- patterns and roles ---------------------------------------------------------------------------


def test_all_parameters_are_trained_by_default() -> None:
    assert roles(FineTuningConfig()) is None
    assert trainable_count(None, {"a": jnp.zeros((2, 3)), "b": jnp.zeros(5)}) == 11


def test_frozen_and_trained_make_the_whole(params: Params) -> None:
    some = roles(FineTuningConfig(freeze=("encoder*", "*.bias")))
    trainable, frozen = partition(some, params, jax.random.key(0))
    names, left = flat(trainable), flat(frozen)
    assert names.keys() | left.keys() == flat(params).keys()
    assert not names.keys() & left.keys()
    assert all(name.startswith("encoder") or name.endswith(".bias") for name in left)
    assert not any(name.startswith("encoder") or name.endswith(".bias") for name in names)
    merged = merge(some, trainable, frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_what_counts_as_a_matrix() -> None:
    assert input_axes((3, 5), -1) == 1
    assert input_axes((8, 2, 4), 1) == 1  # [D, H, K]
    assert input_axes((2, 4, 8), 0) == 2  # [H, K, D]
    assert [input_axes(shape, -1) for shape in ((), (7,), (2, 3, 5), (2, 3, 5, 7))] == [0] * 4


def test_biases_of_heads_and_tables_of_positions_are_no_matrices() -> None:
    config = replace(SMALL, biases="all", positions="relative")
    model = registry.build(config, 11, 13)
    low_rank = assign_roles(
        FineTuningConfig(lora_rank=2), registry.abstract(model), registry.split_axes(model)
    )
    added = {name for name, role in flat(low_rank.of).items() if role.input_axes}
    assert "encoder_0.attention.wq" in added
    assert not {name for name in added if name.endswith((".bq", ".bk", ".bv", ".table"))}
    decays = flat(WEIGHT_DECAY_MASKS["matrices"](registry.abstract(model)))
    assert decays["encoder_0.attention.wq"]
    assert not decays["encoder_0.attention.bq"]


@pytest.mark.parametrize(
    ("config", "with_additions", "without"),
    [
        (SMALL, "encoder_0.attention.wo decoder_0.feed_forward.Dense_1.kernel", "logits.kernel"),
        (Seq2SeqConfig(embed=3, hidden=4), "encoder_0.kernel decoder_0.gates", "logits.kernel"),
        (AttentionConfig(embed=3, hidden=4), "keys.kernel", "tgt_embedding.embedding"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_matrices_but_embeddings_and_output_get_additions(
    config, with_additions: str, without: str
) -> None:
    model = registry.build(config, V, V)
    of = flat(roles(FineTuningConfig(lora_rank=2), model).of)
    for name in with_additions.split():
        assert of[name].input_axes
    for name in without.split():
        assert not of[name].input_axes
    shapes = flat(registry.abstract(model))
    assert not any(of[name].input_axes for name, leaf in shapes.items() if leaf.ndim == 1)
    assert not any(role.trained for role in of.values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FineTuningConfig(freeze=("*",)), r"freezes all \d+ parameters"),
        (FineTuningConfig(freeze=("encodr*",)), "did you mean encoder_0"),
        (FineTuningConfig(lora_rank=9), r"lora_rank = 9 cannot be used: .*\[8, .*rank 8 at most"),
        (FineTuningConfig(lora_rank=2, lora_targets=("*.bias",)), "matches no matrix"),
    ],
)
def test_what_cannot_be_trained_is_refused(config: FineTuningConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        roles(config)


# --- low-rank additions ---------------------------------------------------------------------------


def test_additions_begin_as_nothing(params: Params) -> None:
    lora = roles(LORA)
    trainable, frozen = partition(lora, params, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, merge(lora, trainable, frozen), params)
    pairs = [x for x in flat(trainable) if x.endswith(".a")]
    assert len(pairs) == 3 * 4 + 2 * 2  # attention of three kinds, two feed-forward sub-layers
    draws = flat(trainable)["encoder_0.attention.wq.a"], flat(trainable)["encoder_0.attention.wk.a"]
    assert not np.array_equal(*draws)


def test_the_factors_are_drawn_with_the_variance_of_the_inputs() -> None:
    wide = {"w": jnp.zeros((400, 30))}
    trainable, _ = partition(
        assign_roles(FineTuningConfig(lora_rank=20), wide, {"w": -1}), wide, jax.random.key(0)
    )
    assert trainable["w"].a.std() == pytest.approx(400**-0.5, rel=0.05)
    assert not trainable["w"].b.any()


def test_a_merged_matrix_is_the_sum_over_the_rank(params: Params) -> None:
    """W + (alpha / r) sum_r a_r b_r by plain loops, for each kind of matrix."""
    lora = roles(LORA)
    trainable, frozen = partition(lora, params, jax.random.key(0))
    rng = np.random.default_rng(2)
    filled = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), trainable)
    merged, base, factors = flat(merge(lora, filled, frozen)), flat(params), flat(filled)
    for name, shape in (
        ("encoder_0.attention.wq", (8, 2, 4)),
        ("encoder_0.attention.wo", (2, 4, 8)),
        ("encoder_0.feed_forward.Dense_0.kernel", (8, 12)),
    ):
        a, b = (np.asarray(factors[f"{name}.{part}"], np.float64) for part in "ab")
        expected = np.asarray(base[name], np.float64)
        assert expected.shape == shape
        for r in range(2):
            expected = expected + 3.0 * np.multiply.outer(a[..., r], b[r])  # alpha / r = 6 / 2
        np.testing.assert_allclose(merged[name], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(merged["logits.kernel"], base["logits.kernel"])


def test_gradients_of_the_factors_are_those_of_a_plain_reference() -> None:
    """d/dA = s G B^T and d/dB = s A^T G, where G = d/dW, with inputs and outputs flattened."""
    lora = roles(LORA)
    rng = np.random.default_rng(3)

    def draw(tree: Params) -> Params:
        return jax.tree.map(lambda x: jnp.float32(0.3 * rng.normal(size=x.shape)), tree)

    model_params = draw(registry.abstract(MODEL))
    trainable, frozen = partition(lora, model_params, jax.random.key(0))
    trainable = draw(trainable)

    def loss(params: Params) -> jax.Array:
        return batch_loss(MODEL, params, batch(), 0.1, None).loss

    found = jax.jit(jax.grad(lambda t: loss(merge(lora, t, frozen))))(trainable)
    full = flat(jax.jit(jax.grad(loss))(merge(lora, trainable, frozen)))
    factors, gradients = flat(trainable), flat(found)
    for name, axes in (("encoder_0.attention.wv", 1), ("decoder_0.cross_attention.wo", 2)):
        inputs = int(np.prod(full[name].shape[:axes]))
        G = np.asarray(full[name], np.float64).reshape(inputs, -1)
        a = np.asarray(factors[f"{name}.a"], np.float64).reshape(inputs, 2)
        b = np.asarray(factors[f"{name}.b"], np.float64).reshape(2, -1)
        for part, expected in (("a", 3 * G @ b.T), ("b", 3 * a.T @ G)):
            gradient = np.asarray(gradients[f"{name}.{part}"])
            np.testing.assert_allclose(
                gradient, expected.reshape(gradient.shape), rtol=1e-3, atol=1e-5
            )
            assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_rank_8_trains_a_twentieth_at_most(name: str) -> None:
    config = preset(name, "transformer")
    joint = config.data.joint_vocabulary
    size = config.data.vocabulary_size or 8000
    model = registry.build(config.model, size, size, joint=joint)
    shapes = registry.abstract(model)
    some = assign_roles(FineTuningConfig(lora_rank=8), shapes, registry.split_axes(model))
    trained, base = trainable_count(some, shapes), trainable_count(None, shapes)
    width, ff, layers = config.model.width, config.model.feed_forward, config.model.layers
    assert trained == layers * 8 * (3 * 4 * 2 * width + 2 * 2 * (width + ff))
    assert trained <= 0.05 * base


def test_factors_are_split_as_their_matrix_is() -> None:
    lora = roles(LORA)
    trainable, frozen = split_axes(lora, registry.split_axes(MODEL))
    axes = flat(trainable)
    for name, of_a, of_b in (
        ("encoder_0.attention.wq", -1, 1),  # [D, r] and [r, H, K]: heads
        ("encoder_0.attention.wo", 0, -1),  # [H, K, r] and [r, D]
        ("encoder_0.feed_forward.Dense_0.kernel", -1, 1),
        ("encoder_0.feed_forward.Dense_1.kernel", 0, -1),
    ):
        assert (axes[f"{name}.a"], axes[f"{name}.b"]) == (of_a, of_b)
    assert flat(frozen) == flat(registry.split_axes(MODEL))


# --- steps ----------------------------------------------------------------------------------------


def reference_gradient(params: Params) -> dict[str, np.ndarray]:
    """The mean gradient per token of all parameters."""

    def mean_loss(params: Params) -> jax.Array:
        sums = batch_loss(MODEL, params, batch(), TRAINING.label_smoothing, None)
        return sums.loss / sums.tokens

    return flat(jax.jit(jax.grad(mean_loss))(params))


def test_a_step_leaves_frozen_parameters_out_of_everything(params: Params) -> None:
    """Update, optimizer state, clipping, decay and average know the trainable parameters only."""
    some = roles(FineTuningConfig(freeze=("encoder*", "*embedding*")))
    trainable, frozen = partition(some, params, jax.random.key(0))
    state = init_state(trainable, optimizer(TRAINING), TRAINING, frozen)
    after, norm = step(some, state)
    gradient = reference_gradient(params)
    names = flat(trainable).keys()
    assert flat(state.optimizer[0].mu).keys() == names == flat(after.average).keys()
    expected = np.sqrt(sum(np.square(gradient[n]).sum() for n in names))
    assert norm == pytest.approx(float(expected), rel=1e-4)
    assert norm > TRAINING.clip_norm
    for name, mean in flat(after.optimizer[0].mu).items():  # clipped by the trainable norm
        np.testing.assert_allclose(mean, 0.1 * gradient[name] / norm * 0.5, rtol=1e-3, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, after.frozen, frozen)
    merged, before = flat(merge(some, after.params, after.frozen)), flat(params)
    for name in before:
        assert np.array_equal(merged[name], before[name]) == (name not in names)
    whole = merge(some, after.average, after.frozen)
    assert jax.tree.structure(whole) == jax.tree.structure(params)


def test_a_step_trains_only_the_factors(params: Params) -> None:
    lora = roles(LORA)
    trainable, frozen = partition(lora, params, jax.random.key(0))
    config = replace(TRAINING, optimizer="adam", weight_decay=0.0, clip_norm=0.0)
    state = init_state(trainable, optimizer(config), config, frozen)
    after, _ = step(lora, state, optimizer="adam", weight_decay=0.0, clip_norm=0.0)
    jax.tree.map(np.testing.assert_array_equal, after.frozen, params)
    before, moved = flat(trainable), flat(after.params)
    for name in before:  # while B is zero A has no gradient
        assert np.array_equal(before[name], moved[name]) == name.endswith(".a")
    twice, _ = step(lora, after, optimizer="adam", weight_decay=0.0, clip_norm=0.0)
    assert not np.array_equal(
        flat(twice.params)["encoder_0.attention.wq.a"], before["encoder_0.attention.wq.a"]
    )
    assert isinstance(twice.params["encoder_0"]["attention"]["wq"], LowRank)


def test_parts_of_a_batch_are_the_whole_of_it(params: Params) -> None:
    lora = roles(LORA)
    trainable, frozen = partition(lora, params, jax.random.key(0))
    trainable = jax.tree.map(lambda x: x + 0.1, trainable)
    state = init_state(trainable, optax.sgd(0.5), TRAINING, frozen)

    def run(parts: int) -> TrainState:
        config = replace(TRAINING, gradient_accumulation=parts)
        with jax.numpy_dtype_promotion("standard"):
            jitted = jax.jit(partial(train_step, MODEL, optax.sgd(0.5), config, roles=lora))
            return jitted(state, batch(), jax.random.key(0))[0]

    assert_close(run(1), run(3))


def test_settings_that_contradict_are_refused() -> None:
    for settings, message in (
        ({"lora_rank": -1}, "lora_rank = -1"),
        ({"lora_alpha": 8.0}, "lora_alpha needs lora_rank"),
        ({"lora_targets": ("*",)}, "lora_targets needs lora_rank"),
        ({"lora_rank": 8, "lora_alpha": 0.0}, "lora_alpha = 0.0"),
        ({"lora_rank": 8, "freeze": ("encoder*",)}, "leave freeze out"),
    ):
        with pytest.raises(InputError, match=message):
            FineTuningConfig(**settings)
    assert FineTuningConfig(lora_rank=8).lora_scale == 1
    assert FineTuningConfig(lora_rank=8, lora_alpha=16.0).lora_scale == 2
