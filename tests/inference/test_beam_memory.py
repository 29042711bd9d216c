"""The memory of a search that is estimated before it begins."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

import encdec
from encdec.config import AttentionConfig, ModelConfig, TransformerConfig
from encdec.config.search import SearchOptions
from encdec.data.batches import round_length
from encdec.data.tokens import tokens_of
from encdec.inference import segments
from encdec.inference.batch_search import BatchSearch
from encdec.inference.decoding import Model, encoding_bytes
from encdec.inference.translator import Translator
from encdec.parallel import pmap
from encdec.parallel.layout import SINGLE_DEVICE
from encdec.runs.parameters import best_params, build_model
from encdec.types import InputError
from tests.small_run import small_run

MODELS: dict[str, ModelConfig] = {
    "attention": AttentionConfig(embed=6, hidden=8),
    "wide": TransformerConfig(layers=2, width=64, feed_forward=12, heads=2),
}


@pytest.mark.slow  # each program is compiled twice, and as well as XLA can
@pytest.mark.parametrize(("beam", "alignments"), [(1, False), (4, False), (4, True)])
@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_is_near_what_the_compiler_counts(
    name: str,
    beam: int,
    alignments: bool,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
    full_optimization,
) -> None:
    run = small_run(tmp_path / "run", MODELS[name], ending=-50.0)
    params, _ = best_params(run)
    counted, make = [], segments._program

    def measured(*arguments: Any, **how: Any) -> Any:
        program = make(*arguments, **how)

        def call(*args: Any) -> Any:
            counted.append(pmap.compile_step(program, *args)[1])
            return program(*args)

        return call

    monkeypatch.setattr(segments, "_program", measured)
    options = SearchOptions(beam=beam, max_ratio=0, max_extra=300)
    texts = ["3. Mai 1979"] * 16
    Translator(run, params).translate(texts, options, alignments=alignments)
    source = tokens_of(run.src_vocabulary.encode_all(texts), run.src_vocabulary.specials)
    longest = round_length(int(source.lengths().max()))
    batches = BatchSearch(
        (run,), Model((build_model(run),), "probabilities"), (), np.ones(1), SINGLE_DEVICE, 2**30
    )
    each = batches.sentence_bytes(longest, options, alignments=alignments)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert 0.7 < 16 * each.total(beam) / (max(counted) - size) < 2


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch):
    """A function that gives a device so many bytes, and the rows of the batches of searches."""
    rows: list[int] = []
    searched = BatchSearch._find

    def noted(self: BatchSearch, sources, *others):
        rows.append(len(sources[0][0]))
        return searched(self, sources, *others)

    monkeypatch.setattr(BatchSearch, "_find", noted)
    monkeypatch.setattr("encdec.parallel.devices.core_count", lambda: 1)

    def give(free: float) -> list[int]:
        rows.clear()
        monkeypatch.setattr("encdec.parallel.devices.device_memory", lambda: int(free))
        return rows

    return give


TEXTS = ["3. Mai 1979", "12/11/2026", "1999", "Freitag", "5. Juni", "1. 1. 1", "7/7", "2001"]


@pytest.mark.parametrize("alignments", [False, True])
def test_batches_are_cut_to_what_is_free(device, tmp_path, alignments: bool) -> None:
    """Large vocabularies, wide beams and attention that is kept cost as caches do."""
    run = small_run(tmp_path / "run")
    translator = Translator(run, best_params(run)[0])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(best_params(run)[0]))
    options = SearchOptions(beam=8, max_ratio=0, max_extra=20)
    search = partial(translator.nbest, TEXTS, 1, options, alignments=alignments)
    rows = device(2**30)
    whole = search()
    assert rows == [8]  # in a batch
    # Four arrays [W, V] of float32, 2.5 caches and 36 bytes for each token, and each
    # number of attention four times.
    of_token = 36 + 5 * 2 * 2 * 8 * 4 // 2 + (16 * 4 * 16 if alignments else 0)
    sentence = 8 * (16 * run.tgt_vocabulary.size + 20 * of_token)
    sentence += encoding_bytes(build_model(run), 16)
    rows = device(size + 4.9 * sentence / 0.7)
    parts = search()
    assert rows == [4, 4]
    assert [one[0].tgt_ids for one in parts] == [one[0].tgt_ids for one in whole]
    device(size + 0.95 * sentence / 0.7)
    with pytest.raises(InputError, match=r"beam = 8 needs .* tokens, .*: a beam of [67] would fit"):
        search()


def test_a_source_that_does_not_fit_is_refused_before_any_other_is_translated(
    device, tmp_path
) -> None:
    run = small_run(tmp_path / "run")
    translator = Translator(run, best_params(run)[0])
    rows = device(2**20)
    assert translator.translate(TEXTS)
    assert rows
    rows.clear()
    long = "1" * 1500  # its encoder reads 1,500 x 1,500 pairs of tokens
    with pytest.raises(
        InputError, match=r"a source of 1501 tokens, .* 3084, needs about .* split or"
    ):
        translator.translate([*TEXTS, long])
    with pytest.raises(InputError, match=r"a side of 1501 tokens cannot be scored"):
        encdec.score(translator, [("1", "1"), ("1", long)])
    with pytest.raises(InputError, match=r"a side of 1501 tokens cannot be scored"):
        encdec.evaluate(translator, [("1", "1"), (long, "1")])
    assert not rows


def test_pairs_are_scored_in_batches_that_fit(device, tmp_path, monkeypatch) -> None:
    run = small_run(tmp_path / "run")
    translator = Translator(run, best_params(run)[0])
    pairs = [(text, "2001") for text in TEXTS]
    scored, rows = Translator.log_probs, []

    def noted(self: Translator, batch):
        rows.append(len(batch.src))
        return scored(self, batch)

    monkeypatch.setattr(Translator, "log_probs", noted)
    device(2**30)
    whole = encdec.score(translator, pairs)
    monkeypatch.setattr(Translator, "most_rows_to_score", lambda *_: 3)
    parts = encdec.score(translator, pairs)
    assert rows == [8, 2, 2, 2, 2]
    np.testing.assert_allclose(parts.log_probs, whole.log_probs, rtol=1e-5)
