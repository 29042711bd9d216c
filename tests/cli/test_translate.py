"""`encdec translate`, end to end."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import encdec as encdec_library
from encdec.cli.translate_output import OutputOptions, TranslationLines
from encdec.inference.translation import blank_translation
from tests.cli.numbers import WORDS
from tests.commands import refused
from tests.small_run import small_run


def test_lines_in_lines_out_in_order(trained, encdec) -> None:
    run, _ = trained
    lines = ["drei vier", "", "eins", "   ", "zwei eins drei"]
    stdin = "".join(f"{line}\n" for line in lines).encode()
    expected = [" ".join(WORDS[w] for w in line.split()) for line in lines]
    dashes = ["--input", "-", "--output", "-"]
    for options in ([], ["--beam", 1], ["--max-batch-tokens", 1], dashes):
        found = encdec("translate", run, *options, stdin=stdin)
        assert (found.code, found.out.split("\n"), found.err) == (0, [*expected, ""], "")
    assert encdec("translate", run, stdin=b"").out == ""
    assert encdec("translate", run, stdin=b"eins").out == "one\n"
    assert encdec("translate", run, stdin=b"eins\r\n").out == "one\n"


def test_files_in_and_out(trained, tmp_path: Path, encdec) -> None:
    run, _ = trained
    with gzip.open(tmp_path / "in.gz", "wt") as file:
        file.write("zwei\n\nvier eins\n")
    out = tmp_path / "out"
    found = encdec("translate", run, "--input", tmp_path / "in.gz", "--output", out)
    assert (found.code, found.out) == (0, "")
    assert out.read_text() == "two\n\nfour one\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.gz", "out"]


def test_nbest_with_scores(trained, encdec) -> None:
    run, _ = trained
    found = encdec(
        *("translate", run, "--nbest", 3, "--scores", "--beam", 4), stdin=b"eins zwei\n\n"
    )
    rows = [line.split("\t") for line in found.out.splitlines()]
    assert len(rows) == 6
    scores = [float(score) for score, _ in rows]
    assert rows[0][1] == "one two"
    assert scores[0] >= scores[1] >= scores[2]
    assert all(score <= 0 for score in scores[:3])
    assert len({text for _, text in rows[:3]}) == 3
    assert [text for _, text in rows[3:]] == ["", "", ""]


def test_sampling_is_reproducible(trained, encdec, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = trained
    draw = ["translate", run, "--sample", "--temperature", 3, "--top-k", 4]
    stdin = b"eins zwei drei\n" * 8
    one, same, other = (encdec(*draw, "--seed", s, stdin=stdin).out for s in (1, 1, 2))
    assert one == same != other
    assert len(set(one.splitlines())) > 1  # equal lines are drawn apart
    three = encdec(*draw, "--seed", 1, "--nbest", 3, stdin=stdin).out.splitlines()
    assert three[::3] == one.splitlines()
    monkeypatch.setattr("encdec.data.line_windows.MOST_LINES", 3)
    assert encdec(*draw, "--seed", 1, stdin=stdin).out == one


def test_markup_comes_out_where_its_words_are(trained, encdec) -> None:
    run, _ = trained
    lines = ["<b>drei</b> vier", "eins %1 zwei", "{name} eins <i>zwei drei</i>", "", "{only}"]
    stdin = "".join(f"{line}\n" for line in lines).encode()
    found = encdec("translate", run, "--markup", "--keep", r"%\d", stdin=stdin)
    assert found.out.splitlines() == [
        *("<b>three</b> four", "one %1 two", "{name} one <i>two three</i>", "", "{only}"),
    ]
    refused(encdec("translate", run, "--keep", "[", stdin=b"eins\n"), "keep = '['", "expression")
    refused(encdec("translate", run, "--markup", "--paragraphs", stdin=b"eins\n"), "--paragraphs")
    both = ("--paragraphs", "--too-long", "stop")
    refused(encdec("translate", run, *both, stdin=b"eins\n"), "--too-long", "--paragraphs")


def test_no_translation_breaks_its_line(tmp_path: Path, encdec) -> None:
    """Draws of a model of bytes, each of which is as likely as any other."""
    run = small_run(tmp_path / "run", ending=-2, kind="bytes").path
    stdin = b"abc\n" * 40
    draw = ["--sample", "--max-ratio", 0, "--max-extra", 60, "--seed", 3]
    found = encdec("translate", run, *draw, stdin=stdin)
    assert len(found.out.splitlines()) == 40
    options = encdec_library.SearchOptions(sample=True, max_ratio=0, max_extra=60, seed=3)
    drawn = encdec_library.load(run).translate(["abc"] * 40, options)
    assert len("".join(one.text for one in drawn).splitlines()) > 10
    (tmp_path / "pairs").write_text("abc\tabc\n" * 40)
    out = tmp_path / "out"
    encdec("evaluate", run, "--tsv", tmp_path / "pairs", *draw, "--output", out)
    assert len(out.read_text().splitlines()) == 40


@pytest.mark.parametrize("choice", ["cut", "keep", "empty", "stop"])
def test_a_line_too_long_is_named_and_never_dropped(trained, encdec, choice: str) -> None:
    run, _ = trained
    stdin = b"eins\n" + b"zwei " * 9 + b"\ndrei\n"
    found = encdec("translate", run, "--too-long", choice, stdin=stdin)
    assert "line 2 has 9 tokens, more than the 6" in found.err
    if choice == "stop":
        refused(found, "--too-long cut, keep or empty")
        return
    lines = found.out.splitlines()
    assert (found.code, len(lines), lines[0], lines[2]) == (0, 3, "one", "three")
    assert (lines[1] == "") == (choice == "empty")


def test_bytes_that_are_not_utf8_are_named(trained, tmp_path: Path, encdec) -> None:
    run, _ = trained
    refused(encdec("translate", run, stdin=b"eins\n\xff\xfe\n"), "stdin", "line 2", "UTF-8")
    (tmp_path / "bad").write_bytes(b"eins\nzwei\n\xe4\n")
    (tmp_path / "out").write_text("kept")
    found = encdec("translate", run, "--input", tmp_path / "bad", "--output", tmp_path / "out")
    refused(found, "bad", "line 3", "UTF-8")
    assert (tmp_path / "out").read_text() == "kept"


def test_translate_refuses(trained, tmp_path: Path, encdec) -> None:
    run, _ = trained
    (tmp_path / "in").write_text("eins\n")
    cases: list[tuple[list[object], list[str]]] = [
        ([run, "--nbest", 6], ["nbest = 6", "beam = 5"]),
        ([run, "--beam", 0], ["beam = 0", "at least 1"]),
        ([run, "--beem", 3], ["unknown option --beem", "did you mean --beam"]),
        ([run, "--max-batch-tokens", 0], ["max_batch_tokens = 0"]),
        ([run, "--input", tmp_path / "none"], ["none", "No such file"]),
        ([run, "--input", tmp_path / "in", "--output", tmp_path / "in"], ["is an input"]),
        ([run, "--input", tmp_path / "in", "--output", tmp_path / "no" / "out"], ["no/out"]),
        ([tmp_path / "nowhere"], ["nowhere", "not a folder"]),
        ([tmp_path], ["not a run folder"]),
        ([run, "--top-p", 2], ["top_p = 2.0", "at most 1"]),
        ([run, "--json", "--scores"], ["--scores and --json"]),
        ([run, "--attention"], ["--attention needs --json"]),
        ([run, "--head", 1], ["--layer and --head need --alignment"]),
        ([run, "--alignment", "--layer", 1, "--head", 2], ["head = 2 does not exist", "1 to 1"]),
    ]
    for arguments, parts in cases:
        refused(encdec("translate", *arguments, stdin=b"eins\n"), *parts)
    assert (tmp_path / "in").read_text() == "eins\n"


def test_json_is_what_python_finds(trained, encdec) -> None:
    run, _ = trained
    stdin = b"eins zwei\n\nvier\n"
    everything = ("--json", "--nbest", 2, "--alignment", "--attention")
    found = encdec("translate", run, *everything, stdin=stdin)
    assert (found.code, found.err) == (0, "")
    rows = [json.loads(line) for line in found.out.splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3]
    translator = encdec_library.load(run)
    texts = ["eins zwei", "", "vier"]
    for row, several in zip(rows, translator.nbest(texts, 2, alignments=True), strict=True):
        assert row["source"] == several[0].src_tokens
        for values, one in zip(row["translations"], several, strict=True):
            assert (values["text"], values["tokens"]) == (one.text, one.tgt_tokens)
            assert values["is_cut"] is one.is_cut
            assert values["score"] == pytest.approx(one.score, abs=1e-5)
            assert values["log_prob"] == pytest.approx(sum(values["token_log_probs"]), abs=1e-4)
            if one.attention is None:
                assert values["alignment"] == values["attention"] == []
                continue
            np.testing.assert_allclose(values["attention"], one.attention[0], atol=1e-4)
    assert rows[0]["translations"][0]["alignment"] == [[0, 0], [1, 1]]


def test_alignments_are_written_behind_translations(trained, encdec) -> None:
    run, _ = trained
    options = ("--alignment", "--scores", "--nbest", 2, "--layer", 1, "--head", 1)
    found = encdec("translate", run, *options, stdin=b"drei eins\n\n")
    first, _, third, fourth = found.out.splitlines()
    assert first.split("\t")[1] == "three one ||| 0-0 1-1"
    assert (third, fourth) == ("0.0000\t ||| ", "-inf\t ||| ")


def test_translations_that_are_cut_are_counted(trained, encdec) -> None:
    run, _ = trained
    short = ("--max-ratio", 0, "--max-extra", 2)
    found = encdec("translate", run, *short, stdin=b"eins\neins zwei\ndrei vier\n")
    assert (found.code, found.out) == (0, "one\none two\nthree four\n")
    assert found.err == (
        "encdec: 2 of 3 translations were cut at the limit of their length: --max-ratio and "
        "--max-extra allow more\n"
    )
    rows = encdec("translate", run, *short, "--json", stdin=b"eins\neins zwei\n").out.splitlines()
    assert [json.loads(row)["translations"][0]["is_cut"] for row in rows] == [False, True]


def test_json_has_no_line_break_within_a_line(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run")
    text = 'a\u2028b\x85c\nd"e'
    form = TranslationLines(run, OutputOptions(json=True))
    (line,) = form.lines(7, text, [replace(blank_translation(), text=text, score=-math.inf)])
    assert len(line.splitlines()) == 1
    (values,) = json.loads(line)["translations"]
    assert (values["text"], values["score"]) == (text, None)
