"""`encdec translate` with a prefix for each line and with terminology."""

from pathlib import Path

import pytest

from tests.commands import refused
from tests.small_run import small_run

LINES = ["3. Mai 1979", "", "12/11/2026", "Mai 3", "May 3 5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "run", ending=0).path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in LINES))
    (tmp_path / "prefixes").write_text("19\n\n   \n20\n7\n")
    (tmp_path / "terms").write_text("mai\t05-0\n3. Mai\t03|30\n")
    (tmp_path / "bans").write_text("2026\t2\nmai 3\t1\nmay\t05-0\n")
    return tmp_path


@pytest.mark.slow
def test_each_line_has_its_prefix_and_its_terms(run: Path, files: Path, encdec) -> None:
    options = ["--terms", files / "terms", "--ban-terms", files / "bans", "--max-extra", 9]
    prefixes = ["--prefixes", files / "prefixes"]
    stdin = (files / "in").read_bytes()
    outcome = encdec("translate", run, *options, *prefixes, "--beam", 2, stdin=stdin)
    assert outcome.code == 0
    assert "forbidden here" not in outcome.err
    lines = outcome.out.split("\n")
    assert len(lines) == len(LINES) + 1
    assert lines[0].startswith("19")
    assert "03" in lines[0] or "30" in lines[0]
    assert "05-0" not in lines[0]  # the longer term counts, or it is by chance
    assert lines[1] == ""
    assert "2" not in lines[2]
    assert lines[3].startswith("20")
    assert "1" not in lines[3]  # "mai 3" is longer than "mai"
    assert lines[4].startswith("7")
    assert "05-0" not in lines[4]
    paragraphs = encdec("translate", run, *options, "--paragraphs", stdin=b"Mai 1979\n")
    assert "05-0" in paragraphs.out


def test_prefixes_may_be_a_pipe(run: Path, files: Path, encdec, piped) -> None:
    command = ["translate", run, "--input", files / "in", "--beam", 1, "--max-extra", 2]
    named = encdec(*command, "--prefixes", files / "prefixes").out
    outcome = encdec(*command, "--prefixes", piped((files / "prefixes").read_bytes()))
    assert outcome.code == 0, outcome.err
    assert outcome.out == named
    assert named.startswith("19")
    refused(encdec(*command, "--prefixes", piped(b"19\n")), "has 1 lines", "fewer than the input")
    more = encdec(*command, "--prefixes", piped(b"\n" * 7))
    assert (more.code, "has 5 lines but" in more.err) == (2, True)


@pytest.mark.slow
def test_a_line_that_demands_what_it_forbids_is_said(run: Path, files: Path, encdec) -> None:
    options = ["--terms", files / "terms", "--ban-terms", files / "bans", "--max-extra", 9]
    outcome = encdec("translate", run, *options, stdin=b"3\nMai - May\n")
    assert outcome.code == 0
    assert "05-0" in outcome.out.splitlines()[1]
    assert "line 2: " in outcome.err
    assert "terms, line 1 demands what" in outcome.err
    assert "bans, line 3 forbids: it is not forbidden here" in outcome.err


def test_bad_files_are_named_before_anything_is_translated(run: Path, files: Path, encdec) -> None:
    def write(text: str) -> Path:
        (files / "bad").write_text(text)
        return files / "bad"

    cases: list[tuple[list[object], list[str]]] = [
        (["--prefixes", write("a\n")], ["bad has 1 lines, fewer than the input"]),
        (
            ["--prefixes", write("a\n"), "--input", files / "in"],
            ["in has 5 lines but", "bad has 1"],
        ),
        (["--prefixes", files / "prefixes", "--prefix", "1"], ["--prefixes and --prefix"]),
        (["--prefixes", files / "prefixes", "--paragraphs"], ["--prefixes", "--paragraphs"]),
        (["--prefixes", files / "none"], ["none cannot be read"]),
        (["--terms", files / "terms", "--sample"], ["--terms cannot be used with --sample"]),
        (["--terms", files / "terms", "--ban", "0"], ["terms, line 1: the target term '05-0'"]),
    ]
    for arguments, parts in cases:
        refused(encdec("translate", run, *arguments, stdin=b"1\n2\n"), *parts)
    unknown = write("1\nω\n")
    refused(
        encdec("translate", run, "--prefixes", unknown, stdin=b"1\n2\n"),
        "line 2: prefix = 'ω' has a token",
    )
    limit = ["--max-ratio", 0, "--max-extra", 3]
    refused(
        encdec("translate", run, "--terms", write("2\t12345\n"), *limit, stdin=b"1\n2\n"),
        "line 2: phrases = [('12345',)] may need 5 tokens, but there is room for",
    )
    for text, part in (
        ("mai 05\n", "bad, line 1 has 1 column"),
        ("mai\t05\nmai\t06\n", "bad, line 1 and"),
        ("mai\t05\njuni\tω\n", "bad, line 2: the target term = 'ω' has a token"),
    ):
        refused(encdec("translate", run, "--terms", write(text), stdin=b"1\n"), part)


def test_prefixes_that_are_left_are_said_at_the_end(run: Path, files: Path, encdec) -> None:
    outcome = encdec("translate", run, "--prefixes", files / "prefixes", stdin=b"1\n2\n")
    assert outcome.code == 2
    assert len(outcome.out.splitlines()) == 2
    assert "stdin has 2 lines but" in outcome.err
    assert "has 5: give a prefix for each source line" in outcome.err
