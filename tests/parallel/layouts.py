"""Training of one model in several layouts, for the tests of devices."""

from functools import cache
from typing import Any

import jax
import numpy as np

from encdec.config import ModelConfig, TrainingConfig
from encdec.models import registry
from encdec.parallel.layout import Layout
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from encdec.training.step import StepReport, TrainState, init_state
from encdec.types import Batch, SpecialIds
from tests.batches import padded_batch

PAD, BOS, EOS, _ = SpecialIds()

LAYOUTS = [Layout(1, 1), Layout(4, 1), Layout(1, 4), Layout(2, 2)]
B, S, T, SRC, TGT = 8, 6, 5, 19, 23  # neither vocabulary divides by 2 or 4


def sentences(seed: int) -> Batch:
    """Sentences of uneven lengths; the last is empty."""
    rng = np.random.default_rng(seed)
    src, tgt = np.full((B, S), PAD, np.int32), np.full((B, T + 1), PAD, np.int32)
    for b in range(B - 1):
        n, m = rng.integers(1, S), rng.integers(1, T)
        src[b, :n], src[b, n] = rng.integers(4, SRC, n), EOS
        tgt[b, 0], tgt[b, 1 : m + 1], tgt[b, m + 1] = BOS, rng.integers(4, TGT, m), EOS
    return padded_batch(src, tgt)


class CompiledTraining:
    """The training step of a model in a layout, compiled once for all tests."""

    def __init__(
        self,
        config: ModelConfig,
        training: TrainingConfig,
        layout: Layout,
        scan: bool = False,
    ) -> None:
        model = registry.build(config, SRC, TGT)
        sharded = registry.build(config, SRC, TGT, shards=layout.axes.model, scan=scan)
        self.state_sharding = StateSharding(model, sharded, optimizer(training), training, layout)
        state, key = self.state_sharding.shard(fresh(config, training)), jax.random.key(5)
        with jax.numpy_dtype_promotion("standard"):  # Optax promotes
            batch = self.state_sharding.shard_batch(sentences(0))
            self.program, _ = self.state_sharding.compiled(state, batch, key)

    def train(self, start: TrainState, steps: int) -> tuple[TrainState, list[StepReport]]:
        """Trains from an unsharded state; returns the sharded state and the report of each step."""
        state, reports = self.state_sharding.shard(start), []
        for seed in range(int(start.step), int(start.step) + steps):
            batch = self.state_sharding.shard_batch(sentences(seed))
            state, report = self.program(state, batch, jax.random.key(5))
            reports.append(self.state_sharding.unreplicate(report))
        return state, reports


compiled_training = cache(CompiledTraining)


class Trained:
    """The result of some steps from an unsharded state, `fresh` by default.

    Attributes:
      state: sharded.
      whole: the same state, gathered.
      reports: of each step.
    """

    def __init__(
        self,
        config: ModelConfig,
        training: TrainingConfig,
        layout: Layout,
        steps: int,
        start: TrainState | None = None,
        *,
        scan: bool = False,
    ) -> None:
        training_step = compiled_training(config, training, layout, scan)
        self.state, self.reports = training_step.train(start or fresh(config, training), steps)
        self.whole: TrainState = training_step.state_sharding.gather(self.state)


trained = cache(Trained)


@cache
def fresh(config: ModelConfig, training: TrainingConfig) -> TrainState:
    """The state that every layout starts from. Zero biases would hide mistakes."""
    params = registry.init(registry.build(config, SRC, TGT), jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params)
    return jax.device_get(init_state(params, optimizer(training), training))


def assert_close(one: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
