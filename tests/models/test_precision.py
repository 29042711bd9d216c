"""Matrix products in bfloat16: close to float32, in which all other arithmetic stays."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TransformerConfig,
)
from encdec.models import registry
from encdec.models.loss import batch_loss, cast
from encdec.types import Batch, SpecialIds
from tests.batches import padded_batch

PAD, BOS, EOS, _ = SpecialIds()

B, S, T, W, SRC, TGT = 5, 6, 7, 2, 11, 13
CONFIGS: list[ModelConfig] = [
    Seq2SeqConfig(cell="lstm", embed=6, hidden=8, context_every_step=True),
    AttentionConfig(
        cell="gru", embed=6, hidden=8, attention_type="conditional", recurrent_dropout=0.1
    ),
    AttentionConfig(
        cell="lstm", layers=2, embed=6, hidden=8, attention_type="luong", score="general"
    ),
    TransformerConfig(layers=1, width=8, feed_forward=12, heads=2, norm="post"),
    TransformerConfig(layers=1, width=8, feed_forward=12, heads=2, norm="pre", tie_embeddings=True),
]


def batch() -> Batch:
    rng = np.random.default_rng(0)
    src = rng.integers(4, SRC, (B, S)).astype(np.int32)
    tgt = rng.integers(4, TGT, (B, T + 1)).astype(np.int32)
    src[:, -1], tgt[:, 0], tgt[:, -1] = EOS, BOS, EOS
    src[0, 3:] = tgt[0, 4:] = PAD
    return padded_batch(src, tgt)


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):  # Linen's layer norm promotes
        yield


@pytest.mark.parametrize("config", [*CONFIGS[:2], CONFIGS[-1]], ids=lambda c: type(c).__name__)
def test_losses_and_gradients_are_close_to_float32(config: ModelConfig) -> None:
    tied = isinstance(config, TransformerConfig)
    if tied and jax.__version_info__ < (0, 8, 1) and jax.default_backend() == "cpu":
        pytest.skip("XLA before JAX 0.8.1 has no bfloat16 product of this form on the CPU")
    model = registry.build(config, SRC, TGT)
    params, key = registry.init(model, jax.random.key(0)), jax.random.key(1)

    def loss(params, dtype):
        return batch_loss(model, cast(params, dtype), batch(), 0.1, key).loss

    step = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (exact, gradient), (close, rough) = step(params, jnp.float32), step(params, jnp.bfloat16)
    assert close.dtype == jnp.float32
    assert float(close) == pytest.approx(float(exact), rel=0.01)
    assert float(close) != float(exact)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rough))
    off = optax.tree.norm(jax.tree.map(jnp.subtract, gradient, rough))
    assert float(off) < 0.05 * float(optax.tree.norm(gradient))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_the_cache_is_bfloat16_and_the_results_are_float32(config: ModelConfig) -> None:
    model = registry.build(config, SRC, TGT)

    def first_step(params):
        bound, src = {"params": cast(params, jnp.bfloat16)}, batch().src
        memory = model.apply(bound, src, src != PAD, method="encode")
        cache = model.apply(bound, memory, W, T, method="init_cache")
        tokens = jnp.full((B, W), BOS, jnp.int32)
        logits, attention, after = model.apply(bound, memory, cache, tokens, method="decode_step")
        return cache, after, logits, attention

    cache, after, logits, attention = jax.eval_shape(first_step, registry.abstract(model))
    assert cache == after  # a loop can carry it
    assert jnp.dtype("bfloat16") in {leaf.dtype for leaf in jax.tree.leaves(cache)}
    assert logits.dtype == attention.dtype == jnp.float32
