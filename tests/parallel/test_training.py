"""Training on four devices has the same losses, gradients and parameters as on one."""

import re
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest

from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.models import registry
from encdec.parallel.layout import Layout
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from tests.parallel.layouts import (
    LAYOUTS,
    SRC,
    TGT,
    CompiledTraining,
    Trained,
    assert_close,
    fresh,
    sentences,
    trained,
)

ONE, *MANY = LAYOUTS
TRANSFORMER = TransformerConfig(layers=1, width=16, feed_forward=24, heads=4, dropout=0.0)
TIED = replace(TRANSFORMER, norm="pre", tie_embeddings=True)
RECURRENT: list[ModelConfig] = [
    Seq2SeqConfig(embed=6, hidden=8, dropout=0.0),
    AttentionConfig(embed=6, hidden=8, dropout=0.0),
]
TRAINING = TrainingConfig(
    max_steps=40,
    warmup=5,
    learning_rate=0.01,
    clip_norm=0.5,
    label_smoothing=0.1,
    epsilon=1e-3,
    optimizer="adamw",
    weight_decay=0.01,
)
STEPS = 20


def single_device(config: ModelConfig, steps: int = STEPS) -> Trained:
    return trained(config, TRAINING, ONE, steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "layout"),
    [(config, layout) for config in (TRANSFORMER, TIED) for layout in MANY]
    + [(config, MANY[0]) for config in RECURRENT],
    ids=lambda value: str(value) if isinstance(value, Layout) else type(value).__name__,
)
def test_twenty_steps_equal_those_of_one_device(config: ModelConfig, layout: Layout) -> None:
    """Losses, gradient norms, parameters and optimizer, with uneven and empty sentences."""
    many = trained(config, TRAINING, layout, STEPS)
    assert_close(single_device(config).reports, many.reports)
    assert_close(single_device(config).whole, many.whole)


@pytest.mark.parametrize("layout", [Layout(4, 1, True), Layout(2, 2, True)], ids=str)
def test_a_sharded_optimizer_equals_a_whole_one(layout: Layout) -> None:
    many = trained(TRANSFORMER, TRAINING, layout, STEPS)
    assert_close(single_device(TRANSFORMER).reports, many.reports)
    assert_close(single_device(TRANSFORMER).whole, many.whole)


@pytest.mark.parametrize("layout", [*MANY, Layout(2, 2, True)], ids=str)
def test_gradients_equal_those_of_one_device(layout: Layout) -> None:
    """After one step the first moment of Adam is a tenth of the gradient."""
    one, many = single_device(TIED, 1).whole, trained(TIED, TRAINING, layout, 1).whole
    assert all(np.abs(leaf).max() > 1e-5 for leaf in jax.tree.leaves(one.optimizer[0].mu))
    assert_close(one.optimizer[0].mu, many.optimizer[0].mu, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "first", [Layout(2, 2), Layout(2, 2, True)], ids=["whole optimizer", "sharded optimizer"]
)
@pytest.mark.parametrize("then", [ONE, Layout(4, 1, True), Layout(1, 4)], ids=str)
def test_training_resumes_in_another_layout(first: Layout, then: Layout) -> None:
    half = trained(TRANSFORMER, TRAINING, first, STEPS // 2).whole
    assert half.step == STEPS // 2
    resumed = Trained(TRANSFORMER, TRAINING, then, STEPS // 2, start=half)
    assert_close(single_device(TRANSFORMER).whole, resumed.whole)


@pytest.mark.parametrize(
    "layout", [Layout(2, 2), Layout(2, 2, True)], ids=["whole optimizer", "sharded optimizer"]
)
def test_size_of_the_shards(layout: Layout) -> None:
    """1/model of each split array, rounded up where it does not divide, and for a sharded optimizer
    1/data of that."""
    state = trained(TRANSFORMER, TRAINING, layout, 1).state
    whole = fresh(TRANSFORMER, TRAINING)
    split = registry.split_axes(registry.build(TRANSFORMER, SRC, TGT))
    assert sum(axis >= 0 for axis in jax.tree.leaves(split)) > 10
    adam, whole_adam = state.optimizer[0], whole.optimizer[0]
    for sharded, unsharded, data_shards in (
        (state.params, whole.params, 1),
        (adam.mu, whole_adam.mu, 2 if layout.shard_optimizer else 1),
        (adam.nu, whole_adam.nu, 2 if layout.shard_optimizer else 1),
    ):

        def check(x: jax.Array, axis: int, one: np.ndarray, count: int = data_shards) -> None:
            shape = list(one.shape)
            if axis >= 0:
                shape[axis] = -(-shape[axis] // layout.model)
            for shard in x.addressable_shards:
                assert shard.data.size == np.prod(shape) / count

        jax.tree.map(check, sharded, split, unsharded)


BIASED = replace(
    TIED,
    embedding_norm=True,
    activation="gelu",
    biases="all",
    output_bias=True,
    positions="learned",
    max_positions=20,
)
RELATIVE = replace(
    TRANSFORMER,
    decoder_layers=2,
    head_width=5,
    norm="pre",
    norm_type="rms",
    gated=True,
    biases="none",
    output_bias=False,
    positions="relative",
    scale_scores=False,
)


@pytest.mark.slow
@pytest.mark.parametrize("config", [BIASED, RELATIVE], ids=["biased", "relative"])
def test_dialects_are_those_of_one_device(config: TransformerConfig) -> None:
    """Biases of heads and of the output, and tables of relative positions, are split too."""
    one, many = single_device(config, 1), trained(config, TRAINING, Layout(2, 2), 1)
    assert_close(one.reports, many.reports)
    assert_close(one.whole.optimizer[0].mu, many.whole.optimizer[0].mu, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layout", [Layout(1, 4), Layout(2, 2, True)], ids=str)
def test_layers_in_a_loop_are_those_of_one_device(layout: Layout) -> None:
    config = replace(TIED, layers=2)
    one, many = single_device(config, 2), trained(config, TRAINING, layout, 2, scan=True)
    assert_close(one.reports, many.reports)
    assert_close(one.whole.params, many.whole.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True], ids=["", "loop"])
@pytest.mark.parametrize("layout", [Layout(2, 2)], ids=str)
def test_dropout_keeps_replicated_parameters_equal(layout: Layout, scan: bool) -> None:
    """Model shards drop different activations, but replicated parameters get the same gradient."""
    config = replace(TRANSFORMER, dropout=0.3, attention_dropout=0.2, activation_dropout=0.2)
    wet = trained(config, TRAINING, layout, 5, scan=scan)
    split = registry.split_axes(registry.build(config, SRC, TGT))

    def check(x: jax.Array, axis: int) -> None:
        copies = [np.asarray(shard.data)[0] for shard in x.addressable_shards]
        alike = copies if axis < 0 else copies[:: layout.model]
        for other in alike[1:]:
            np.testing.assert_array_equal(alike[0], other)

    jax.tree.map(check, wet.state.params, split)
    dry = trained(TRANSFORMER, TRAINING, layout, 5)
    assert dry.reports[-1].sums.loss != wet.reports[-1].sums.loss


@pytest.mark.slow
@pytest.mark.parametrize("config", [TIED, replace(TRANSFORMER, layers=2)], ids=["tied", "two"])
def test_number_of_collectives(config: TransformerConfig, full_optimization: None) -> None:
    """The table in `encdec.parallel.pmap`: N layers, P parameter arrays."""
    N, P = config.layers, len(jax.tree.leaves(fresh(config, TRAINING).params))
    among_models = 10 * N + 5
    expected = {
        Layout(4, 1): {"all-reduce": 1},
        Layout(1, 4): {"all-reduce": among_models},
        Layout(2, 2): {"all-reduce": among_models + 1},
        Layout(2, 2, True): {
            "all-reduce": among_models + 2,
            "reduce-scatter": P,
            "all-gather": P,
        },
    }
    for layout in list(expected) if N == 1 else [Layout(1, 4)]:
        assert collectives(config, layout) == expected[layout], layout


@pytest.mark.parametrize("config", RECURRENT, ids=["seq2seq", "attention"])
def test_number_of_collectives_of_recurrent_models(
    config: ModelConfig, full_optimization: None
) -> None:
    """They have no model shards, so gradients are all that their devices sum."""
    P = len(jax.tree.leaves(fresh(config, TRAINING).params))
    assert collectives(config, Layout(4, 1)) == {"all-reduce": 1}
    sharded = {"all-reduce": 2, "reduce-scatter": P, "all-gather": P}
    assert collectives(config, Layout(2, 1, True)) == sharded


def collectives(config: ModelConfig, layout: Layout) -> dict[str, int]:
    """The number of operations of each kind in the compiled program of a training step."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    program = CompiledTraining(config, TRAINING, layout).program.as_text()
    return dict(Counter(re.findall(rf"= .*? ({kinds})(?:-start)?\(", program)))


def test_remat_changes_the_memory_only() -> None:
    whole = registry.build(TIED, SRC, TGT)
    remat = registry.build(TIED, SRC, TGT, remat=True)
    batch, key, losses, needed = sentences(0), jax.random.key(0), [], []
    for model in (whole, remat):
        state_sharding = StateSharding(whole, model, optimizer(TRAINING), TRAINING, ONE)
        with jax.numpy_dtype_promotion("standard"):  # Optax promotes
            program, memory = state_sharding.compiled(state := state_sharding.init(key), batch, key)
            losses.append(jax.device_get(program(state, batch, key)))
        needed.append(memory)
    assert_close(*losses)
    assert needed[1] < needed[0]
