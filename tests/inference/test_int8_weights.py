"""A Transformer with 8-bit weights against the one with its own, and against itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import encdec
from encdec.config import AttentionConfig
from encdec.parallel.layout import Layout
from encdec.types import InputError
from tests.small_run import SMALL, small_run

TEXTS = ["Montag, 3. Mai 1999", "7. Juli 2021", "1. 1. 1970"]
OPTIONS = encdec.SearchOptions(beam=3, max_extra=9, max_ratio=0)
DIALECTS = {
    "paper": SMALL,
    "gated": replace(SMALL, norm="pre", norm_type="rms", gated=True, activation="gelu-tanh"),
    "biased": replace(SMALL, biases="all", head_width=6),
    "relative": replace(SMALL, positions="relative", scale_scores=False),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_is_near_and_agrees_with_itself(tmp_path: Path, dialect: str) -> None:
    small_run(tmp_path / "run", DIALECTS[dialect])
    plain, rounded = (encdec.load(tmp_path / "run", weights=w) for w in ("float32", "int8"))
    found = [best[0] for best in rounded.nbest(TEXTS, 1, OPTIONS)]
    pairs = [(text, one.text) for text, one in zip(TEXTS, found, strict=True)]
    assert not any(one.is_cut for one in found)
    of_search = [one.log_prob for one in found]
    of_itself, of_plain = (encdec.score(one, pairs).log_probs for one in (rounded, plain))
    # Rows are rounded one by one, so neither batches nor steps matter.
    np.testing.assert_allclose(of_search, of_itself, atol=1e-4)
    np.testing.assert_allclose(of_itself, of_plain, atol=0.3)
    assert not np.allclose(of_itself, of_plain, atol=1e-5)


def test_what_cannot_have_them_is_refused(tmp_path: Path) -> None:
    small_run(tmp_path / "rnn", AttentionConfig(embed=6, hidden=8))
    with pytest.raises(InputError, match="rnn, a run of attention: only a Transformer"):
        encdec.load(tmp_path / "rnn", weights="int8")
    small_run(tmp_path / "transformer")
    with pytest.raises(InputError, match="is for one CPU, not for layout 2x1 on cpu"):
        encdec.load(tmp_path / "transformer", Layout(2, 1), weights="int8")
    with pytest.raises(InputError, match="weights = 'int4' is unknown: give one of float32, int8"):
        encdec.load(tmp_path / "transformer", weights="int4")  # type: ignore[arg-type]


def test_with_a_shortlist_and_in_an_ensemble(tmp_path: Path) -> None:
    small_run(tmp_path / "run", ending=0)
    table = tmp_path / "all"
    table.write_text("".join(f"{letter} NULL 0.1\n" for letter in "0123456789-"))
    rounded = encdec.load(tmp_path / "run", weights="int8")
    whole = rounded.nbest(TEXTS, 2, OPTIONS)
    both = encdec.load_ensemble([tmp_path / "run"] * 2, weights="int8").nbest(TEXTS, 2, OPTIONS)
    for other in (rounded.with_shortlist(table).nbest(TEXTS, 2, OPTIONS), both):
        for ours, theirs in zip(whole, other, strict=True):
            assert ours[0].score == pytest.approx(theirs[0].score, abs=0.05)
