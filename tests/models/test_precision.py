"""The precision of products: bfloat16 close to float32, and float32 on every device."""

import re
from collections.abc import Iterator
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
from encdec.config.search import SearchOptions
from encdec.inference.decoding import Model, Shared
from encdec.inference.scoring import log_probs
from encdec.models import registry
from encdec.models.interface import bind
from encdec.models.loss import batch_loss
from encdec.ops.recurrence import LSTMState, unroll
from encdec.search.loop import unroll as search_to_the_end
from encdec.search.methods import Sentences, split
from encdec.training.step import init_state, train_step
from encdec.types import Batch, Precision, SpecialIds
from tests.batches import padded_batch
from tests.models.bag_of_words import BagOfWordsConfig

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


def name(config: ModelConfig) -> str:
    return type(config).__name__


def batch() -> Batch:
    rng = np.random.default_rng(0)
    src = rng.integers(4, SRC, (B, S)).astype(np.int32)
    tgt = rng.integers(4, TGT, (B, T + 1)).astype(np.int32)
    src[:, -1], tgt[:, 0], tgt[:, -1] = EOS, BOS, EOS
    src[0, 3:] = tgt[0, 4:] = PAD
    return padded_batch(src, tgt)


def built(config: ModelConfig, precision: Precision = "float32"):
    return registry.build(config, SRC, TGT, precision=precision)


@pytest.fixture(autouse=True)
def standard_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):  # Linen's layer norm promotes
        yield


# --- bfloat16 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("uses", [1, 100, 1_000, 10_000])
def test_the_gradient_of_an_embedding_adds_up_over_its_uses(uses: int) -> None:
    """Each use of the token weighs 0.01, so its row has the gradient 0.01 times the uses."""
    config = TransformerConfig(
        layers=1, width=2, feed_forward=2, heads=1, norm="pre", scale_embeddings=False, dropout=0.0
    )
    model = built(config, "bfloat16")
    params = registry.init(model, jax.random.key(0))
    tokens = np.full((1, uses), 4, np.int32)

    def weighed(params):
        rows = bind(model, params)(tokens, method=lambda model, x: model.tgt_embedding(x))
        return (0.01 * rows).sum()

    row = jax.jit(jax.grad(weighed))(params)["tgt_embedding"]["embedding"][4]
    np.testing.assert_allclose(row, 0.01 * uses, rtol=0.01)


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[2], CONFIGS[-1]], ids=name)
def test_gradients_of_many_equal_rows_add_up(config: ModelConfig) -> None:
    """A batch of 10,000 equal rows has 10,000 times the gradient of one row."""
    uses = 10_000
    model = built(replace(config, dropout=0.0), "bfloat16")
    params = registry.init(model, jax.random.key(0))

    def gradient(rows: int):
        src, tgt = np.full((rows, 1), 4, np.int32), np.full((rows, 2), 5, np.int32)
        full = Batch(src, src != PAD, tgt, tgt[:, 1:] != PAD)
        loss = lambda p: batch_loss(model, p, full, 0.0, None).loss  # noqa: E731
        return jax.jit(jax.grad(loss))(params)

    one, many = gradient(1), gradient(uses)
    off = optax.tree.norm(jax.tree.map(lambda m, o: m / uses - o, many, one))
    assert float(off) < 0.01 * float(optax.tree.norm(one))


def test_a_memory_cell_counts_ten_thousand_small_steps() -> None:
    """Open input and forget gates: c_t = c(t-1) + tanh(g) with tanh(g) = 0.01."""
    steps, open_gate = 10_000, 30.0
    gates = np.array([open_gate, open_gate, np.arctanh(0.01), 0.0], np.float32)
    x = np.tile(gates, (steps, 1, 1))
    start = LSTMState(*np.zeros((2, 1, 1), np.float32))
    weights = {"recurrent": np.zeros((1, 4), np.float32)}
    run = jax.jit(partial(unroll, "lstm", precision="bfloat16"))
    last, outputs = run(weights, start, x, np.ones((steps, 1), bool))
    assert last.c.dtype == last.h.dtype == outputs.dtype == jnp.float32
    assert last.c.item() == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_losses_and_gradients_are_close_to_float32(config: ModelConfig) -> None:
    params, key = registry.init(built(config), jax.random.key(0)), jax.random.key(1)

    @partial(jax.jit, static_argnums=1)
    def step(params, precision):
        loss = lambda p: batch_loss(built(config, precision), p, batch(), 0.1, key).loss  # noqa: E731
        return jax.value_and_grad(loss)(params)

    (exact, gradient), (close, rough) = step(params, "float32"), step(params, "bfloat16")
    assert close.dtype == jnp.float32
    assert float(close) == pytest.approx(float(exact), rel=0.01)
    assert float(close) != float(exact)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rough))
    off = optax.tree.norm(jax.tree.map(jnp.subtract, gradient, rough))
    assert float(off) < 0.02 * float(optax.tree.norm(gradient))


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_only_keys_and_values_of_a_cache_are_bfloat16(config: ModelConfig) -> None:
    model = built(config, "bfloat16")

    def first_step(params):
        apply, src = bind(model, params), batch().src
        memory = apply(src, src != PAD, method="encode")
        cache = apply(memory, W, T, method="init_cache")
        tokens = jnp.full((B, W), BOS, jnp.int32)
        logits, attention, after = apply(memory, cache, tokens, method="decode_step")
        return cache, after, logits, attention

    cache, after, logits, attention = jax.eval_shape(first_step, registry.abstract(model))
    assert cache == after  # a loop can carry it
    is_recurrent = not isinstance(config, TransformerConfig)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(cache) if leaf.dtype != jnp.int32}
    assert kinds == {jnp.dtype("float32" if is_recurrent else "bfloat16")}
    assert logits.dtype == attention.dtype == jnp.float32


# --- the lowered programs -------------------------------------------------------------------------


def train(model, params, batch):
    adam, config = optax.adam(1e-3), TrainingConfig(scheduled_sampling=0.5)
    state = init_state(params, adam, config)
    return train_step(model, adam, config, state, batch, jax.random.key(0))


def search(model, params, batch):
    static, arrays = split(SearchOptions(beam=3), SpecialIds(), max_len=T)
    limits, no_prefix = jnp.full(B, T, jnp.int32), jnp.zeros((B, 0), jnp.int32)
    sentences = Sentences(limits, jnp.arange(B), no_prefix)
    decoder, shared = Model((model,), "probabilities"), Shared(arrays, jnp.ones(1))
    memory = decoder.encode((params,), ((batch.src, batch.src_mask),))
    return search_to_the_end(decoder.search((params,), memory, sentences, shared, static))


PROGRAMS = {
    "training": train,
    "scoring": lambda model, params, batch: log_probs(params, batch, model=model),
    "search": search,
}


def products(config: ModelConfig, precision: Precision, program: str) -> list[str]:
    """The lines of a program, lowered for a TPU, that multiply matrices."""
    model = built(config, precision)
    run = jax.jit(partial(PROGRAMS[program], model))
    lowered = run.trace(registry.abstract(model), batch()).lower(lowering_platforms=("tpu",))
    text = lowered.as_text()
    return re.findall(r".*stablehlo\.(?:dot_general|dot|convolution)\b.*", text)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("config", [*CONFIGS, BagOfWordsConfig(width=8)], ids=name)
def test_every_product_of_float32_is_asked_for_in_full(config: ModelConfig, program: str) -> None:
    """Of a family from outside too, whose layers are Flax's."""
    lines = products(config, "float32", program)
    assert lines
    for line in lines:
        assert "precision = [HIGHEST, HIGHEST]" in line
        assert "bf16" not in line


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[2], CONFIGS[-1]], ids=name)
def test_what_is_multiplied_in_tf32_and_bfloat16(config: ModelConfig) -> None:
    """Products of bfloat16 have sums of float32."""
    for program in ("training", "search"):
        for line in products(config, "tf32", program):
            assert "precision = [HIGH, HIGH]" in line
            assert "bf16" not in line
        for line in products(config, "bfloat16", program):
            assert re.search(r": \(tensor<\S*xbf16>, tensor<\S*xbf16>\) -> tensor<\S*xf32>", line)
