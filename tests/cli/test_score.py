"""`encdec score`: what it writes is what `encdec.score` finds, in the order of the input."""

import json
import math
from pathlib import Path

import pytest

import encdec as library
from encdec.config import Seq2SeqConfig
from tests.commands import refused
from tests.small_run import small_run

GREEDY = ["--beam", 1]


@pytest.fixture(scope="module")
def scores(folder: Path) -> list[float]:
    """Of the test set: a blank pair among them."""
    texts = ((folder / name).read_text().splitlines() for name in ("src", "tgt"))
    found = library.score(library.load(folder / "a"), list(zip(*texts, strict=True)))
    return found.log_probs.tolist()


def columns(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_files_tsv_and_stdin(folder: Path, tmp_path: Path, encdec, scores) -> None:
    files = ["--source", folder / "src", "--target", folder / "tgt"]
    done = encdec("score", folder / "a", *files)
    assert done.code == 0, done.err
    numbers, targets = zip(*columns(done.out), strict=True)
    assert [*targets] == (folder / "tgt").read_text().splitlines()
    assert [*map(float, numbers)] == pytest.approx(scores, abs=1e-4)
    assert scores[1] == 0  # a blank line translates to a blank line
    tsv = ["--tsv", folder / "one.tsv", folder / "two.tsv.gz", "--tsv-columns", 3, 2]
    out = tmp_path / "out"
    assert encdec("score", folder / "a", *tsv, "--output", out).out == ""
    rows = columns(out.read_text())
    assert [row[0] for row in rows] == [*numbers]
    assert rows[0][1:] == ["0", "One &amp; two", "3. Mai 1979"]  # the line as it was
    lines = b"1. Januar 2015\t2015-01-01\n12/11/2026\tx Y z\n"
    piped = columns(encdec("score", folder / "a", stdin=lines).out)
    assert [float(row[0]) for row in piped] == pytest.approx(scores[2:], abs=1e-4)


def test_own_translations_have_the_scores_of_the_search(folder: Path, tmp_path, encdec) -> None:
    command = ["translate", folder / "a", "--input", folder / "src", "--scores"]
    command += ["--beam", 4, "--nbest", 4, "--length-penalty", 0]
    rows = columns(encdec(*command).out)
    sources = [text for text in (folder / "src").read_text().splitlines() for _ in range(4)]
    pairs = zip(sources, rows, strict=True)
    # Not the empty ones, which are refused.
    kept = [(source, text, float(score)) for source, (score, text) in pairs if text]
    assert len(kept) > 3
    lines = "".join(f"{source}\t{text}\n" for source, text, _ in kept).encode()
    found = columns(encdec("score", folder / "a", stdin=lines).out)
    for (_, text, score), row in zip(kept, found, strict=True):
        assert row[2] == text
        assert float(row[0]) == pytest.approx(score, abs=2e-4)  # both are rounded


def test_tokens(folder: Path, encdec) -> None:
    files = ["--source", folder / "src", "--target", folder / "tgt"]
    rows = columns(encdec("score", folder / "a", *files, "--tokens").out)
    assert rows[1][1:] == ["", "", ""]
    for total, target, tokens, numbers in (rows[0], *rows[2:]):
        assert tokens.split(" ")[-1] == "</s>"
        assert len(tokens.split(" ")) == len(numbers.split(" ")) == len(target) + 1
        assert sum(map(float, numbers.split(" "))) == pytest.approx(float(total), abs=2e-3)
    objects = encdec("score", folder / "a", *files, "--tokens", "--json").out.splitlines()
    for line, (total, target, tokens, _) in zip(objects, rows, strict=True):
        row = json.loads(line)
        assert row["target"] == target
        assert row["score"] == pytest.approx(float(total), abs=1e-4)
        assert " ".join(row["tokens"]) == tokens
        assert sum(row["token_scores"]) == pytest.approx(row["score"], abs=1e-4)


def test_json_is_one_line_for_every_reader(tmp_path: Path, encdec) -> None:
    """Line breaks of Unicode are escaped, and what is not finite is null."""
    run = small_run(
        tmp_path / "run", Seq2SeqConfig(cell="simple", embed=6, hidden=8), ending=-math.inf
    )
    pair = "3 May\u2028 1979\t1979\x85-05"
    out = encdec("score", run.path, "--json", "--tokens", stdin=f"{pair}\n".encode()).out
    (line,) = out.splitlines()
    row = json.loads(line, parse_constant=pytest.fail)
    assert f"{row['source']}\t{row['target']}" == pair
    assert row["score"] is None
    assert row["token_scores"][-1] is None
    assert None not in row["token_scores"][:-1]


def test_n_best_lists(folder: Path, tmp_path: Path, encdec, scores) -> None:
    lines = [
        *("3 ||| x Y z ||| f= 1 2 ||| -3.5", "0 ||| One &amp; two |||  ||| 1"),
        *("2 ||| 2015-01-01", "0 ||| two ||| ||| 7"),
    ]
    (tmp_path / "list").write_text("".join(f"{line}\n" for line in lines))
    command = ["score", folder / "a", "--source", folder / "src", "--nbest", tmp_path / "list"]
    rows = columns(encdec(*command).out)
    assert [row[1] for row in rows] == lines
    expected = [scores[3], scores[0], scores[2]]
    assert [float(row[0]) for row in rows][:3] == pytest.approx(expected, abs=1e-4)


def test_refusals(folder: Path, tmp_path: Path, encdec) -> None:
    run, src, tgt = folder / "a", folder / "src", folder / "tgt"
    both = ["--source", src, "--target", tgt]
    (tmp_path / "empty").write_text("a\nb\nc\n\n")
    (tmp_path / "list").write_text("0 ||| a ||| 1\nzero ||| b\n")
    (tmp_path / "far").write_text("0 ||| a ||| 1\n4 ||| b ||| 2\n")
    (tmp_path / "bare").write_text("0 a\n")
    (tmp_path / "huge").write_text(f"{'9' * 5000} ||| a\n")
    nbest = [run, "--source", src, "--nbest"]
    together = ["give --source and --target, --source and --nbest, --tsv, or nothing"]
    cases: list[tuple[list[object], list[str]]] = [
        ([tmp_path / "nowhere", *both], ["nowhere", "not a folder"]),
        ([run, "--target", tgt], together),
        ([run, "--source", src], together),
        ([run, "--nbest", tgt], together),
        ([run, *both, "--nbest", tgt], together),
        ([run, *both, "--tsv", folder / "one.tsv"], together),
        ([run, *both, tgt], ["as many source files as target files"]),
        ([run, "--source", src, "--target", folder / "one.tsv"], ["src has 4", "one.tsv has 3"]),
        ([run, "--source", src, "--target", tmp_path / "no"], ["no cannot be read"]),
        ([run, "--source", src, "--target", tmp_path / "empty"], ["empty, line 4", "empty target"]),
        ([*nbest, tmp_path / "list"], ["list, line 2", "id ||| translation"]),
        ([*nbest, tmp_path / "far"], ["far, line 2", "id 4", "ids 0 to 3"]),
        ([*nbest, tmp_path / "huge"], ["huge, line 1", "id ||| translation"]),
        ([*nbest, tmp_path / "bare"], ["bare, line 1", "id ||| translation"]),
        ([run, "--tsv", folder / "one.tsv", "--tsv-columns", 1, 9], ["one.tsv, line 1", "9"]),
        ([run, "--tsv", folder / "one.tsv", "--tsv-columns", 0, 1], ["counted from 1"]),
        ([run, *both, "--output", tgt], ["tgt is an input"]),
        ([run, *both, "--max-batch-tokens", 0], ["max_batch_tokens = 0"]),
        ([run, "--tokns"], ["unknown option --tokns; did you mean --tokens"]),
    ]
    for arguments, parts in cases:
        refused(encdec("score", *arguments), *parts)
    refused(encdec("score", run, stdin=b"one column\n"), "stdin, line 1", "1 column")
