"""The memory of a function, estimated from its operations."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import encdec
from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig, TransformerConfig
from encdec.inference.decoding import encoding_bytes
from encdec.inference.program_memory import peak_bytes, scaled_bytes
from encdec.models import registry
from encdec.types import InputError
from tests.small_run import SMALL, small_run

X = jax.ShapeDtypeStruct((7, 3), jnp.float32)
MODELS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(embed=24, hidden=32),
    "attention": AttentionConfig(embed=24, hidden=32),
    "transformer": TransformerConfig(layers=2, width=32, feed_forward=64, heads=4),
}


def _products(x: jax.Array) -> jax.Array:
    return jnp.einsum("ik,jk->ij", x, x)


def test_by_hand() -> None:
    assert peak_bytes(lambda x: x, X) == 0
    assert peak_bytes(jnp.sin, X) == 4 * 21
    assert peak_bytes(lambda x: jnp.sin(jnp.cos(x)), X) == 4 * 21  # in place
    assert peak_bytes(lambda x: (jnp.sin(x), jnp.cos(x)), X) == 2 * 4 * 21
    # The product, and what it is reduced to.
    assert peak_bytes(lambda x: _products(x).max(-1), X) == 4 * (49 + 7)
    assert peak_bytes(jax.jit(lambda x: _products(x).max(-1)), X) == 4 * (49 + 7)


def test_a_loop_needs_the_memory_of_one_turn() -> None:
    def loop(x: jax.Array, turns: int) -> jax.Array:
        return jax.lax.fori_loop(0, turns, lambda _, y: _products(y) @ y, x)

    once, often = (peak_bytes(partial(loop, turns=turns), X) for turns in (1, 100))
    assert once == often
    assert 4 * (49 + 21) <= once <= 4 * 2 * (49 + 21)


def test_short_sentences_are_not_traced_for_each_length() -> None:
    traced = []

    def bytes_of(length: int) -> int:
        traced.append(length)
        return 3 * length + length**2

    for length in (1, 8, 64, 65, 100, 128, 1000, 1024, 1500):
        assert bytes_of(length) <= scaled_bytes(bytes_of, length) <= 2 * bytes_of(max(length, 64))
    assert {*traced[1::3]} == {64, 128, 1024, 1500}


@pytest.mark.slow
@pytest.mark.parametrize("length", [64, 1024])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_near_what_the_compiler_counts(
    name: str, length: int, full_optimization: None
) -> None:
    model = registry.build(MODELS[name], 50, 50)
    source = (jax.ShapeDtypeStruct((1, length), dtype) for dtype in (jnp.int32, bool))

    def encode(params, *source):
        return model.apply({"params": params}, *source, method="encode")

    counted = jax.jit(encode).lower(registry.abstract(model), *source).compile().memory_analysis()
    needed = counted.temp_size_in_bytes + counted.output_size_in_bytes
    assert 0.3 < encoding_bytes(model, length) / needed < 2


def test_a_model_without_so_many_positions_is_asked_for_the_length_itself() -> None:
    def bytes_of(length: int) -> int:
        if length > 40:
            raise InputError("too long")
        return 100 * length

    assert scaled_bytes(bytes_of, 13) == 1300
    with pytest.raises(InputError, match="too long"):
        scaled_bytes(bytes_of, 41)


def test_sources_as_long_as_the_positions_are_translated_and_scored(tmp_path: Path) -> None:
    small_run(tmp_path / "run", replace(SMALL, positions="learned", max_positions=40))
    translator = encdec.load(tmp_path / "run")
    text = "1" * 39  # and the end token
    assert len(translator(text).src_tokens) == 40
    assert np.isfinite(encdec.score(translator, [(text, "1")]).loss)
