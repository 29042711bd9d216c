"""Numbers of parameters and initial values."""

import jax
import numpy as np

from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TransformerConfig,
)
from encdec.config.presets import preset
from encdec.models import registry


def init(config: ModelConfig, vocabulary: int = 50, *, joint: bool = False):
    model = registry.build(config, vocabulary, vocabulary, joint=joint)
    return lambda: registry.init(model, jax.random.key(0))


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_base_has_as_many_parameters_as_the_paper_says() -> None:
    """Vaswani 2017, table 3: 65 million, with a joint vocabulary of about 37,000."""
    V, D, F, N = 37_000, 512, 2048, 6
    attention, feed_forward, norm = 4 * D * D, 2 * D * F + F + D, 2 * D
    encoder = attention + feed_forward + 2 * norm
    decoder = 2 * attention + feed_forward + 3 * norm
    params = jax.eval_shape(init(preset("base", "transformer").model, V, joint=True))
    assert count(params) == V * D + N * (encoder + decoder)
    assert round(count(params) / 1e6) in (63, 64, 65)


def test_recurrent_matrices_are_orthogonal_and_the_forget_bias_is_one() -> None:
    params = jax.jit(init(Seq2SeqConfig(cell="lstm", embed=6, hidden=8)))()["encoder_0"]
    for block in np.split(np.asarray(params["recurrent"]), 4, -1):
        np.testing.assert_allclose(block.T @ block, np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(params["bias"], np.repeat([0, 1, 0, 0], 8))
    assert np.abs(params["kernel"]).max() <= np.sqrt(6 / (6 + 8))


def test_attention_is_uniform_at_initialization() -> None:
    params = jax.jit(init(AttentionConfig(embed=6, hidden=8)))()
    assert (np.asarray(params["v"]) == 0).all()


def test_variance_of_embeddings_and_range_of_head_kernels() -> None:
    config = TransformerConfig(layers=1, width=16, feed_forward=24, heads=2)
    params = jax.jit(init(config, 400))()
    table = np.asarray(params["tgt_embedding"]["embedding"])
    assert abs(table.var() * 16 - 1) < 4 * np.sqrt(2 / table.size)
    kernel = np.asarray(params["encoder_0"]["attention"]["wq"])
    bound = np.sqrt(6 / 32)
    assert 0.9 * bound < np.abs(kernel).max() <= bound
