"""Training some parameters, or low-rank additions, on four devices against one."""

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from encdec.config import FineTuningConfig, TrainingConfig, TransformerConfig
from encdec.models import registry
from encdec.parallel.layout import Layout
from encdec.training.fine_tuning import assign_roles
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from encdec.training.step import StepReport, TrainState
from encdec.types import Params
from tests.parallel.layouts import SRC, TGT, assert_close, sentences

ONE = Layout(1, 1)
MODEL = TransformerConfig(layers=1, width=16, feed_forward=24, heads=4, dropout=0.0)
TRAINING = TrainingConfig(
    max_steps=40, warmup=2, learning_rate=0.02, clip_norm=0.5, epsilon=1e-3, ema_decay=0.5
)
# The output's 23 columns do not divide among the devices; a pattern asks for them too.
LORA = FineTuningConfig(
    lora_rank=3, lora_alpha=6.0, lora_targets=("*attention.w?", "*Dense*", "logits*")
)
FREEZE = FineTuningConfig(freeze=("encoder*", "src_embedding*", "*.bias"))


def state_sharding(tuning: FineTuningConfig, layout: Layout) -> StateSharding:
    one = registry.build(MODEL, SRC, TGT)
    many = registry.build(MODEL, SRC, TGT, shards=layout.axes.model)
    roles = assign_roles(tuning, registry.abstract(one), registry.split_axes(one))
    return StateSharding(one, many, optimizer(TRAINING), TRAINING, layout, roles)


@cache
def start(tuning: FineTuningConfig) -> TrainState:
    """A state whose parameters, B among them, are not zero."""
    rng = np.random.default_rng(1)
    one = state_sharding(tuning, ONE)
    state = jax.device_get(one.init(jax.random.key(0)))

    def noisy(tree: Params) -> Params:
        return jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype("float32"), tree)

    return state._replace(params=noisy(state.params), frozen=noisy(state.frozen))


@cache
def trained(tuning: FineTuningConfig, layout: Layout) -> tuple[TrainState, Params, list[Any]]:
    """The whole state after six steps, the merged parameters, and what each step measured."""
    devices = state_sharding(tuning, layout)
    state, reports = devices.shard(start(tuning)), []
    with jax.numpy_dtype_promotion("standard"):  # Optax promotes
        batch = devices.shard_batch(sentences(0))
        program, _ = devices.compiled(state, batch, jax.random.key(5))
    for seed in range(6):
        state, report = program(state, devices.shard_batch(sentences(seed)), jax.random.key(5))
        reports.append(StepReport(*devices.unreplicate(report)))
    merged = devices.gather_params(devices.merge(state.params, state.frozen))
    return devices.gather(state), merged, reports


@pytest.mark.parametrize(
    ("tuning", "layout"),
    [
        (LORA, Layout(4, 1)),
        (LORA, Layout(1, 4)),
        (LORA, Layout(2, 2, True)),
        (FREEZE, Layout(2, 2, True)),
    ],
    ids=["additions-4x1", "additions-1x4", "additions-2x2-sliced", "frozen-2x2-sliced"],
)
def test_steps_and_merged_parameters_are_those_of_one_device(
    tuning: FineTuningConfig, layout: Layout
) -> None:
    one, many = trained(tuning, ONE), trained(tuning, layout)
    assert_close(one[2], many[2])
    assert_close(one[1], many[1])
    assert_close(one[0], many[0])
    assert jax.tree.structure(one[1]) == jax.tree.structure(many[1])
    for name in ("params", "average"):
        moved = jax.tree.map(np.array_equal, getattr(one[0], name), getattr(start(tuning), name))
        assert not any(jax.tree.leaves(moved))
    jax.tree.map(np.testing.assert_array_equal, many[0].frozen, start(tuning).frozen)
