"""A search on four devices finds the same translations as on one."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from encdec.config import AttentionConfig, Seq2SeqConfig
from encdec.config.search import SearchOptions
from encdec.inference import translator
from encdec.inference.scoring import score
from encdec.inference.translator import Translator
from encdec.models import registry
from encdec.parallel import pmap, sharding
from encdec.parallel.layout import Layout
from tests.small_run import SMALL, small_run

TEXTS = ["May 3, 1979", "", "3. Mai 1979", "12/31/2001", "x", "7 avril 2013", "1", "2-2"]
LAYOUTS = [Layout(3, 1), Layout(1, 4), Layout(2, 2)]  # 8 sentences do not divide by 3
HEADS = replace(SMALL, heads=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "run", HEADS).path


@pytest.fixture(scope="module")
def single(run: Path) -> Translator:
    return translator.load(run)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_tokens_scores_and_alignments(run: Path, single: Translator, layout: Layout) -> None:
    many = translator.load(run, layout)
    for beam in (1, 3):
        how = {"options": SearchOptions(beam=beam), "alignments": True}
        expected, found = (one.nbest(TEXTS, beam, **how) for one in (single, many))
        for one, other in zip(expected, found, strict=True):
            assert [t.tgt_tokens for t in one] == [t.tgt_tokens for t in other]
            for a, b in zip(one, other, strict=True):
                assert a.text == b.text
                assert a.score == pytest.approx(b.score, abs=1e-5)
                if a.attention is not None:
                    np.testing.assert_allclose(a.attention, b.attention, atol=1e-5)
    pairs = single.run.held_out
    assert score(many, pairs).loss == pytest.approx(score(single, pairs).loss, rel=1e-5)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (Seq2SeqConfig(embed=4, hidden=6), SearchOptions(beam=2)),
        (AttentionConfig(embed=4, hidden=6), SearchOptions(beam=2, sample=True, seed=3)),
    ],
    ids=["seq2seq", "attention"],
)
def test_recurrent_models_split_sentences(tmp_path: Path, config, options) -> None:
    path = small_run(tmp_path / "run", config).path
    one, many = translator.load(path), translator.load(path, Layout(4, 1))
    texts = [[t.text for t in found.translate(TEXTS, options)] for found in (one, many)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("beam", [1, 2])
def test_one_device_ends_while_another_waits(tmp_path: Path, beam: int) -> None:
    """Of 32 rows the second device has one sentence, so it waits at once for the first device,
    whose sentences never end before their limit."""
    path = small_run(tmp_path / "run", ending=-50.0).path
    one, many = translator.load(path), translator.load(path, Layout(2, 1))
    texts = [f"{i % 9} May 19{i}" for i in range(10, 27)]
    options = SearchOptions(beam=beam, max_ratio=0, max_extra=21)
    found, expected = (each.translate(texts, options) for each in (many, one))
    assert [t.tgt_tokens for t in found] == [t.tgt_tokens for t in expected]
    assert {len(t.tgt_ids) for t in found} == {21}


def test_memory_and_cache_are_split_by_heads() -> None:
    """Each device holds only the keys and values of its heads, for source and target."""
    layout, single = Layout(1, 4), registry.build(HEADS, 11, 13)
    params = registry.init(single, jax.random.key(0))

    def inside(model, params):
        src = np.ones((3, 5), np.int32)
        memory = model.apply({"params": params}, src, src > 0, method="encode")
        return memory, model.apply({"params": params}, memory, 2, 7, method="init_cache")

    specs = sharding.shard_specs(params, registry.split_axes(single), layout)
    model = registry.build(HEADS, 11, 13, shards=layout.axes.model)
    step = pmap.parallelize(partial(inside, model), layout, (True,))
    memory, cache = step(sharding.shard(params, specs, layout))
    whole_memory, whole_cache = jax.eval_shape(partial(inside, single), params)
    pairs = [(memory.source, whole_memory.source, 1), (cache.past, whole_cache.past, 2)]
    for held, whole, axis in pairs:
        for part, one in zip(jax.tree.leaves(held), jax.tree.leaves(whole), strict=True):
            expected = list(one.shape)
            expected[axis] //= 4
            for shard in part.addressable_shards:
                assert shard.data.shape == (1, *expected)
