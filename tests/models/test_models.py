"""All models against NumPy loops with the same parameters, and their invariances."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TransformerConfig,
)
from encdec.data.batches import round_length
from encdec.models import registry
from encdec.models.interface import has_padding
from encdec.types import InputError, Kept, SpecialIds
from tests import oracles

PAD = SpecialIds().pad

B, S, T, W, SRC, TGT = 3, 7, 5, 2, 11, 13
LENGTHS = (7, 4, 1)

CONFIGS: list[ModelConfig] = [
    Seq2SeqConfig(cell="simple", layers=1, embed=6, hidden=8, context_every_step=True),
    Seq2SeqConfig(cell="gru", layers=2, embed=6, hidden=8, reverse_source=False),
    Seq2SeqConfig(cell="lstm", layers=2, embed=6, hidden=8, context_every_step=True),
    Seq2SeqConfig(cell="gru-reset-after", layers=1, embed=6, hidden=8),
    AttentionConfig(cell="simple", layers=1, embed=6, hidden=8, score="dot"),
    AttentionConfig(cell="gru", layers=2, embed=6, hidden=8, score="additive"),
    AttentionConfig(
        cell="lstm", layers=2, embed=6, hidden=8, score="general", attention_type="luong"
    ),
    AttentionConfig(
        cell="gru", layers=1, embed=8, hidden=8, attention_type="luong", tie_embeddings=True
    ),
    AttentionConfig(
        cell="gru-reset-after", layers=2, embed=6, hidden=8, attention_type="conditional"
    ),
    AttentionConfig(
        cell="lstm",
        embed=6,
        hidden=8,
        score="general",
        attention_type="conditional",
        tie_embeddings=True,
    ),
    TransformerConfig(layers=2, width=8, feed_forward=12, heads=2, norm="post"),
    TransformerConfig(layers=1, width=6, feed_forward=10, heads=3, norm="pre", tie_embeddings=True),
    TransformerConfig(
        layers=1,
        decoder_layers=2,
        width=6,
        feed_forward=10,
        heads=3,
        norm_epsilon=1e-5,
        embedding_norm=True,
        activation="gelu",
        biases="all",
        output_bias=True,
        positions="learned",
        position_offset=2,
        max_positions=10,
        tie_embeddings=True,
    ),
    TransformerConfig(
        layers=2,
        width=6,
        feed_forward=10,
        heads=2,
        head_width=5,
        norm="pre",
        norm_type="rms",
        activation="gelu-tanh",
        gated=True,
        biases="none",
        positions="relative",
        relative_buckets=4,
        relative_max_distance=5,
        relative_every_layer=True,
        scale_embeddings=False,
        scale_scores=False,
        scale_outputs=True,
        tie_embeddings=True,
    ),
]


def name(config: ModelConfig) -> str:
    return "-".join(
        str(getattr(config, field))
        for field in ("cell", "layers", "score", "attention_type", "norm", "positions")
        if hasattr(config, field)
    ) + ("-context" if getattr(config, "context_every_step", False) else "")


def sentences(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    src = rng.integers(4, SRC, (B, S)).astype(np.int32)
    src[np.arange(S) >= np.array(LENGTHS)[:, None]] = PAD
    return src, rng.integers(4, TGT, (B, T)).astype(np.int32)


class Bound:
    """A model with random parameters, its methods compiled."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.model = registry.build(config, SRC, TGT)
        params = registry.init(self.model, jax.random.key(0))
        rng = np.random.default_rng(1)
        # Zero biases and a zero v would hide mistakes.
        self.params = jax.tree.map(
            lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), params
        )
        apply = partial(self.model.apply, {"params": self.params})
        self.full = jax.jit(lambda src, tgt: apply(src, src != PAD, tgt))
        self.encode = jax.jit(lambda src: apply(src, src != PAD, method="encode"))
        self.init_cache = partial(apply, method="init_cache")
        self.init_beam_cache = partial(apply, method="init_beam_cache")
        self.step = jax.jit(partial(apply, method="decode_step"))

    def oracle(self, src, tgt_in):
        p = jax.tree.map(lambda x: np.asarray(x, np.float64), self.params)
        if isinstance(self.config, Seq2SeqConfig):
            logits = oracles.seq2seq(self.config, p, src, tgt_in)
            return logits, np.zeros((0, len(tgt_in), len(src)))
        if isinstance(self.config, AttentionConfig):
            logits, attention = oracles.rnn_attention(self.config, p, src, tgt_in)
            return logits, attention[None]
        logits, maps = oracles.transformer(self.config, p, src, tgt_in)
        return logits, maps["encoder-decoder"]


@pytest.fixture(scope="module", params=CONFIGS, ids=name)
def bound(request: pytest.FixtureRequest) -> Bound:
    return Bound(request.param)


def test_full_pass_is_the_oracle_sentence_by_sentence(bound: Bound) -> None:
    src, tgt = sentences()
    logits = bound.full(src, tgt)
    assert logits.shape == (B, T, TGT)
    for b, length in enumerate(LENGTHS):
        expected, _ = bound.oracle(src[b, :length], tgt[b])
        np.testing.assert_allclose(logits[b], expected, rtol=1e-4, atol=2e-5)


def test_steps_are_the_full_pass_and_their_weights_the_oracles(bound: Bound) -> None:
    """Two hypotheses of a sentence with different prefixes, side by side."""
    src, first = sentences()
    _, second = sentences(seed=5)
    memory = bound.encode(src)
    cache = bound.init_cache(memory, W, T)
    assert all(leaf.shape[:2] == (B, W) for leaf in jax.tree.leaves(cache))
    for t in range(T):
        tokens = np.stack([first[:, t], second[:, t]], 1)
        logits, weights, cache = bound.step(memory, cache, tokens)
        for w, prefix in enumerate((first, second)):
            np.testing.assert_allclose(
                logits[:, w], bound.full(src, prefix)[:, t], rtol=1e-4, atol=2e-5
            )
            for b, length in enumerate(LENGTHS):
                _, maps = bound.oracle(src[b, :length], prefix[b, : t + 1])
                assert weights.shape == (B, W, len(maps), S)
                np.testing.assert_allclose(weights[b, w, :, :length], maps[:, t], atol=1e-5)
                assert (np.asarray(weights[b, w, :, length:]) == 0).all()


def test_steps_of_hypotheses_that_continue_each_other_are_the_full_pass(bound: Bound) -> None:
    src, _ = sentences()
    random, beams = np.random.default_rng(6), 3
    memory = bound.encode(src)
    cache = bound.init_beam_cache(memory, beams, T)
    prefixes = np.full((B, beams, T), PAD, np.int32)
    for t in range(T):
        tokens = prefixes[..., t] = random.integers(4, TGT, (B, beams))
        logits, _, cache = bound.step(memory, cache, tokens)
        for w in range(beams):
            expected = bound.full(src, prefixes[:, w])[:, t]
            np.testing.assert_allclose(logits[:, w], expected, rtol=1e-4, atol=2e-5)
        parents = random.integers(0, beams, (B, beams))
        prefixes = np.take_along_axis(prefixes, parents[..., None], 1)

        def moved(x, parents=parents):
            if isinstance(x, Kept):
                return x
            return x[np.arange(B)[:, None], parents]

        cache = jax.tree.map(moved, cache, is_leaf=lambda x: isinstance(x, Kept))


def test_a_sentence_does_not_notice_padding_or_its_neighbours(bound: Bound) -> None:
    src, tgt = sentences()
    logits = bound.full(src, tgt)
    wider = np.pad(src[::-1], ((0, 0), (0, 3)))
    np.testing.assert_allclose(bound.full(wider, tgt[::-1])[::-1], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "bound",
    [c for c in CONFIGS if has_padding(registry.build(c, SRC, TGT))],
    ids=name,
    indirect=True,
)
def test_padding_of_a_memory_is_padding_of_its_sources(bound: Bound) -> None:
    (src, tgt), more = sentences(), 4
    pad = partial(bound.model.apply, {"params": bound.params}, method="pad_memory")
    memory = pad(bound.encode(src), S + more)
    wider = bound.encode(np.pad(src, ((0, 0), (0, more))))
    assert jax.tree.map(jnp.shape, memory) == jax.tree.map(jnp.shape, wider)
    cache = bound.init_cache(memory, 1, T)
    for t in range(T):
        logits, weights, cache = bound.step(memory, cache, tgt[:, t : t + 1])
        expected = bound.full(src, tgt)[:, t]
        np.testing.assert_allclose(logits[:, 0], expected, rtol=1e-4, atol=2e-5)
        assert (np.asarray(weights)[..., S:] == 0).all()


def test_an_empty_sentence_is_finite(bound: Bound) -> None:
    src, tgt = sentences()
    src[1] = PAD

    def loss(params):
        return (bound.model.apply({"params": params}, src, src != PAD, tgt) ** 2).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(bound.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


def test_no_logit_depends_on_a_later_token(bound: Bound) -> None:
    """By gradient: each target position gets an embedding row of its own."""
    src, _ = sentences()
    tgt = np.tile(np.arange(4, 4 + T, dtype=np.int32), (B, 1))
    src = np.where(src == PAD, PAD, 4).astype(np.int32)

    def logits_of(table, t):
        tree = dict(bound.params) | {"tgt_embedding": {"embedding": table}}
        out = bound.model.apply({"params": tree}, src, src != PAD, tgt)
        # A tied output would depend on the table directly; its last row stands for no input.
        return jnp.sin(out[:, t, -1]).sum()

    table = bound.params["tgt_embedding"]["embedding"]
    gradient = jax.jit(jax.grad(logits_of), static_argnums=1)
    for t in (0, 2):
        seen = np.abs(gradient(table, t)[4 : 4 + T]).sum(-1)
        assert (seen[: t + 1] > 0).all()
        assert (seen[t + 1 :] == 0).all()


def test_dropout_needs_a_key_and_obeys_it(bound: Bound) -> None:
    src, tgt = sentences()
    wet = registry.build(type(bound.config)(**{**vars(bound.config), "dropout": 0.3}), SRC, TGT)
    apply = partial(wet.apply, {"params": bound.params}, src, src != PAD, tgt)
    dry = jax.jit(apply)()
    np.testing.assert_allclose(dry, bound.full(src, tgt), rtol=1e-4, atol=1e-5)
    drop = jax.jit(lambda key: apply(rngs={"dropout": key}))
    one, same, other = (drop(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(one, dry)


PLACES = [
    (config, place)
    for config, places in (
        (CONFIGS[1], ("embedding", "output", "recurrent")),
        (CONFIGS[6], ("embedding", "memory", "output", "recurrent")),
        (CONFIGS[8], ("embedding", "memory", "output", "recurrent")),
        (CONFIGS[10], ("embedding", "attention", "activation", "stack")),
    )
    for place in places
]


@pytest.mark.parametrize(
    ("config", "place"), PLACES, ids=[f"{name(config)}-{place}" for config, place in PLACES]
)
def test_each_place_has_a_dropout_of_its_own(config: ModelConfig, place: str) -> None:
    """With all others off, a key changes the logits."""
    wet = replace(config, **{"dropout": 0.0, f"{place}_dropout": 0.5})
    params, dry = without_dropout(config)
    model = registry.build(wet, SRC, TGT)
    src, tgt = sentences()
    apply = jax.jit(partial(model.apply, params, src, src != PAD, tgt))
    found = [apply(rngs={"dropout": jax.random.key(seed)}) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])
    assert not np.allclose(found[0], dry)


@cache
def without_dropout(config: ModelConfig):
    """Parameters, and the logits that they give."""
    model, (src, tgt) = registry.build(config, SRC, TGT), sentences()
    params = {"params": registry.init(model, jax.random.key(0))}
    if "v" in params["params"]:  # zero at first: nothing would depend on the scores
        params["params"]["v"] = jnp.ones_like(params["params"]["v"])
    return params, jax.jit(model.apply)(params, src, src != PAD, tgt)


def test_more_tokens_than_learned_positions_are_refused() -> None:
    """Padding may go beyond them, up to the next length that batches have."""
    config = TransformerConfig(
        layers=1, width=8, feed_forward=12, heads=2, positions="learned", max_positions=S
    )
    model, (src, tgt) = registry.build(config, SRC, TGT), sentences()
    params = {"params": registry.init(model, jax.random.key(0))}
    expected = model.apply(params, src, src != PAD, tgt)
    longer = round_length(S)
    padded = np.pad(src, [(0, 0), (0, longer - S)], constant_values=PAD)
    np.testing.assert_allclose(model.apply(params, padded, padded != PAD, tgt), expected, atol=1e-5)
    wide = np.pad(padded, [(0, 0), (0, 1)], constant_values=PAD)
    with pytest.raises(InputError, match=rf"{longer + 1} tokens, .* max_positions = {S}"):
        model.apply(params, wide, wide != PAD, tgt)


def test_one_compilation_a_shape(bound: Bound) -> None:
    traces = []

    @jax.jit
    def run(src, tgt):
        traces.append(src.shape)
        return bound.model.apply({"params": bound.params}, src, src != PAD, tgt)

    src, tgt = sentences()
    other, _ = sentences(seed=3)
    for source in (src, other, src[:, :4], other[:, :4]):
        run(source, tgt)
    assert traces == [(B, S), (B, 4)]
