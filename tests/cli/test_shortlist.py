"""`encdec shortlist`, `translate` with its table, and 8-bit weights: what makes a CPU faster."""

import gzip
import json
from pathlib import Path

import pytest

from encdec.config import AttentionConfig
from tests.commands import refused
from tests.small_run import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "run", ending=-2).path


def test_a_table_is_made_and_used(run: Path, tmp_path: Path, encdec) -> None:
    table = tmp_path / "table.gz"
    text = tmp_path / "pairs.tsv"
    text.write_text("Mai\t05\n\nJuni\t06\n7\t07\n" * 9)
    outcome = encdec("shortlist", run, "--out", table, "--tsv", text)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith(f"{table}: ")
    assert "learnt from 27 pairs" in outcome.err
    lines = gzip.decompress(table.read_bytes()).decode().splitlines()
    assert "0 NULL 0.5" in {line[:10] for line in lines}
    assert {line.split()[0] for line in lines} == {*"0567"}
    options = ["--shortlist", table, "--max-extra", 9, "--min-length", 5, "--ban-unknown"]
    translated = encdec("translate", run, *options, stdin=b"Mai\nJ 9\n")
    assert translated.code == 0
    first, second = translated.out.splitlines()
    assert {*first} <= {*"0567"}
    assert {*second} <= {*"05679"}
    assert len(first) > 3


def test_what_cannot_be_used_is_refused(run: Path, tmp_path: Path, encdec) -> None:
    refused(
        encdec("shortlist", run, "--out", tmp_path / "table"), "was not trained on text in files"
    )
    unknown = tmp_path / "unknown.tsv"
    unknown.write_text("\u0416\t\u0416\n")
    nothing = encdec("shortlist", run, "--out", tmp_path / "table", "--tsv", unknown)
    refused(nothing, "the table would be empty")
    other = tmp_path / "other"
    other.write_text("▁Hund ▁dog 0.5\n")
    translated = encdec("translate", run, "--shortlist", other, stdin=b"x\n")
    refused(translated, "other", "1 of 1 lines", "▁Hund ▁dog", "encdec shortlist")
    evaluated = encdec("evaluate", run, "--shortlist", other)
    refused(evaluated, "1 of 1 lines")
    assert not (tmp_path / "table").exists()


def test_weights_of_8_bits(run: Path, tmp_path: Path, encdec) -> None:
    translated = encdec("translate", run, "--weights", "int8", "--json", stdin=b"Mai\n7\n")
    assert (translated.code, len(translated.out.splitlines())) == (0, 2)
    text = tmp_path / "pairs.tsv"
    text.write_text("Mai\t05\n7\t07\n")
    losses = {}
    for weights in ("float32", "int8"):
        scored = encdec("score", run, "--weights", weights, "--tsv", text)
        losses[weights] = [float(line.split("\t")[0]) for line in scored.out.splitlines()]
    assert losses["int8"] != losses["float32"]
    assert losses["int8"] == pytest.approx(losses["float32"], abs=0.3)
    evaluated = encdec("evaluate", run, "--tsv", text, "--weights", "int8", "--json")
    assert json.loads(evaluated.out)["weights"] == "int8"
    rnn = small_run(tmp_path / "rnn", AttentionConfig(embed=4, hidden=6)).path
    refused(encdec("translate", rnn, "--weights", "int8", stdin=b"7\n"), "only a Transformer")
