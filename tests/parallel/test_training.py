"""Training on four devices against one."""

from dataclasses import replace

import pytest

from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.parallel import Layout
from tests.parallel.layouts import LAYOUTS, Trained, assert_close

TRANSFORMER = TransformerConfig(layers=2, width=16, feed_forward=24, heads=4, dropout=0.0)
TIED = replace(TRANSFORMER, norm="pre", tie_embeddings=True)
TRAINING = TrainingConfig(
    max_steps=40, warmup=5, learning_rate=0.01, clip=0.5, label_smoothing=0.1, epsilon=1e-3
)


@pytest.mark.parametrize("layout", LAYOUTS[1:], ids=str)
@pytest.mark.parametrize(
    "config",
    [
        Seq2SeqConfig(embed=6, hidden=8, dropout=0.0),
        AttentionConfig(embed=6, hidden=8, dropout=0.0),
        TRANSFORMER,
        TIED,
    ],
    ids=["seq2seq", "attention", "transformer", "tied"],
)
def test_twenty_steps_are_those_of_one_device(config: ModelConfig, layout: Layout) -> None:
    if layout.model > 1 and not isinstance(config, TransformerConfig):
        pytest.skip("only a Transformer is split")
    alone, many = Trained(config, TRAINING, LAYOUTS[0], 20), Trained(config, TRAINING, layout, 20)
    assert_close(alone.reports, many.reports)
    assert_close(alone.whole(), many.whole())
