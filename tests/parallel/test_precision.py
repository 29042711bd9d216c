"""What devices add up between them is float32, whatever products multiply."""

import re

import jax
import pytest

from encdec.config import TrainingConfig, TransformerConfig
from encdec.models import registry
from encdec.parallel.layout import Layout
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from tests.parallel.layouts import SRC, TGT, sentences

CONFIG = TransformerConfig(layers=1, width=8, feed_forward=12, heads=4, norm="pre")


@pytest.mark.parametrize("layout", [Layout(1, 4), Layout(4, 1, True)], ids=str)
def test_sums_over_devices_are_float32(layout: Layout) -> None:
    training, key = TrainingConfig(), jax.random.key(0)
    full, one = (
        registry.build(CONFIG, SRC, TGT, shards=shards, precision="bfloat16")
        for shards in (None, layout.axes.model)
    )
    state_sharding = StateSharding(full, one, optimizer(training), training, layout)
    with jax.numpy_dtype_promotion("standard"):  # Optax promotes
        state = state_sharding.init(key)
        batch = state_sharding.shard_batch(sentences(0))
        text = state_sharding._step.lower(state, batch, key).as_text()
    operations = re.findall(
        r'"?stablehlo\.(?:all_reduce|reduce_scatter|all_gather).*?-> .*?$', text, re.S | re.M
    )
    assert len(operations) > 5
    assert not [one for one in operations if "bf16" in one]
