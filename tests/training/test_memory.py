"""The memory that is checked before training begins."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from encdec.config import AttentionConfig, Seq2SeqConfig, TrainingConfig, TransformerConfig
from encdec.config.models import ModelConfig
from encdec.data.batches import largest_batches
from encdec.data.bucketing import Bucket, Bucketing
from encdec.models import registry
from encdec.parallel.layout import SINGLE_DEVICE
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from encdec.types import Batch

MODELS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(embed=24, hidden=32),
    "attention": AttentionConfig(embed=24, hidden=32),
    "transformer": TransformerConfig(layers=2, width=32, feed_forward=64, heads=4),
}
# As batches of 2,000 tokens have them: many short sentences, or few long ones.
SHAPES = [(240, 7, 8), (96, 23, 17), (42, 31, 47), (12, 160, 150)]


def needed(model: ModelConfig, vocabulary: int, batch: Batch) -> int:
    """The bytes of a training step, as the compiler counts them."""
    built, training = registry.build(model, vocabulary, vocabulary), TrainingConfig()
    states = StateSharding(built, built, optimizer(training), training, SINGLE_DEVICE)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.numpy_dtype_promotion("standard"):  # Optax needs it
        found = states.compiled(states.shapes, batch, key, measure=True)[1]
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [50, 8000])
@pytest.mark.parametrize("name", MODELS)
def test_the_batch_that_needs_the_most_is_among_those_that_are_measured(
    name: str, vocabulary: int, full_optimization: None
) -> None:
    buckets = tuple(Bucket(*shape, 1, np.zeros(0, np.int32)) for shape in SHAPES)
    model = replace(MODELS[name], dropout=0.1)
    every = [largest_batches(Bucketing((bucket,)))[0] for bucket in buckets]
    bytes_of = {batch.src.shape: needed(model, vocabulary, batch) for batch in every}
    measured = [batch.src.shape for batch in largest_batches(Bucketing(buckets))]
    assert len(measured) <= 2
    assert max(bytes_of[shape] for shape in measured) >= 0.95 * max(bytes_of.values())
