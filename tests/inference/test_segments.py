"""A search in segments finds what the same search finds in one program."""

from typing import Any

import jax
import numpy as np
import pytest

from encdec.config import AttentionConfig, TransformerConfig
from encdec.config.search import SearchOptions
from encdec.inference import segments
from encdec.inference.decoding import Model, Shared, search_length
from encdec.models import registry
from encdec.parallel.layout import SINGLE_DEVICE
from encdec.search.loop import unroll
from encdec.search.methods import Sentences, split
from encdec.types import SpecialIds

B, S, V, MAX_LEN = 36, 5, 23, 50
MODELS = {
    "transformer": TransformerConfig(layers=1, width=12, feed_forward=10, heads=3),
    "attention": AttentionConfig(embed=6, hidden=8),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(beam=1),
        SearchOptions(beam=3, length_penalty=0.7),
        pytest.param(
            SearchOptions(beam=2, no_repeat_ngram=2, stop="first"), marks=pytest.mark.slow
        ),
        SearchOptions(beam=2, sample=True, seed=7),
        pytest.param(SearchOptions(beam=4, beam_groups=2), marks=pytest.mark.slow),
    ],
    ids=["greedy", "beam", "beam with a rule", "samples", "groups"],
)
def test_rows_that_leave_change_nothing(name: str, options: SearchOptions, monkeypatch) -> None:
    config = MODELS[name]
    module = registry.build(config, V, V)
    params = jax.tree.map(lambda x: x * 2, registry.init(module, jax.random.key(1)))
    rng = np.random.default_rng(5)
    lengths = rng.integers(1, S + 1, B)
    mask = np.arange(S) < lengths[:, None]
    src = np.where(mask, rng.integers(4, V, (B, S)), 0).astype(np.int32)
    # Most sentences leave early, some need the largest cache, and the last rows are padding.
    limits = np.where(np.arange(B) % 9 == 0, MAX_LEN, rng.integers(1, 20, B)).astype(np.int32)
    limits[-3:] = 0
    sentences = Sentences(limits, np.arange(B, dtype=np.uint32), np.zeros((B, 0), np.int32))
    static, arrays = split(options, SpecialIds(), max_len=MAX_LEN, with_attention=True)
    model = Model((module,), "probabilities")
    shared = Shared(arrays, np.ones(1, np.float32))

    @jax.jit
    def whole(params: Any) -> Any:
        memory = model.encode((params,), ((src, mask),))
        return unroll(model.search((params,), memory, sentences, shared, static))

    rows: list[int] = []
    widths: set[int] = set()
    program = segments._program

    def watched(*args: Any, **how: Any) -> Any:
        compiled = program(*args, **how)

        def call(*given: Any) -> Any:
            if args[-1] is segments._advance:
                rows.append(given[3].max_lengths.shape[0])
                widths.add(given[2][0].mask.shape[1])
            return compiled(*given)

        return call

    monkeypatch.setattr(segments, "_program", watched)
    seen: list[tuple[int, list[int]]] = []

    def watch(places: np.ndarray, tokens: np.ndarray) -> None:
        seen.extend(
            (place, [t for t in row if t])
            for place, row in zip(places, tokens.tolist(), strict=True)
        )

    def find(watch: Any = None) -> Any:
        return segments.find(
            SINGLE_DEVICE,
            model,
            static,
            (params,),
            shared,
            ((src, mask),),
            sentences,
            cache_grows=name == "transformer",
            gather=jax.device_get,
            watch=watch,
        )

    found = find()
    expected = jax.device_get(whole(params))
    assert rows[0] == B
    assert rows[-1] == segments._FEWEST
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=1e-5, atol=1e-5)
    width = search_length(module, S)
    assert widths == {width}
    assert width == (8 if name == "transformer" else S)
    np.testing.assert_allclose(found.attention[..., :S], expected.attention, atol=1e-5)
    assert (found.attention[..., S:] == 0).all()
    assert found.lengths.max() > 16  # so that a second cache was needed
    jax.tree.map(np.testing.assert_array_equal, find(watch), found)
    assert len({place for place, _ in seen}) > 9
    for place, tokens in seen:
        assert SpecialIds().end not in tokens
        assert len(tokens) < limits[place]
        assert tokens or options.beam > 1 or options.sample  # the best so far may be empty
        if options.beam == 1 or options.sample:  # nothing is taken back
            assert tokens == found.tokens[place, 0, : len(tokens)].tolist()


def test_sources_of_many_lengths_are_searched_at_few() -> None:
    modules = {name: registry.build(config, V, V) for name, config in MODELS.items()}
    lengths = [*range(1, 200)]
    rounded = [search_length(modules["transformer"], length) for length in lengths]
    assert set(rounded[:128]) == {8, 16, 32, 64, 128}
    assert rounded[128:] == lengths[128:]
    assert all(
        length <= longer < max(2 * length, 9)
        for length, longer in zip(lengths, rounded, strict=True)
    )
    assert [search_length(modules["attention"], length) for length in lengths] == lengths
