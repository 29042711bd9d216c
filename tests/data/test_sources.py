"""Readers of parallel text: what they yield, and how they refuse bad files."""

import gzip
import io
import itertools

import pytest

from encdec.data.sources import (
    InMemoryPairs,
    Pairs,
    ParallelFiles,
    TsvFile,
    decode_lines,
    read_all,
    read_lines,
    read_pairs,
    stream_lines,
)
from encdec.types import InputError

LINES = ["plain", "", "line\u2028separator \x0b\x85 stays", "Ünïcödé 😀", "\ttab and \r inside"]


def test_only_a_newline_ends_a_line(tmp_path) -> None:
    path = tmp_path / "text"
    for end, last in (("\n", "\n"), ("\r\n", "\r\n"), ("\n", "")):
        path.write_bytes((end.join(LINES) + last).encode())
        assert read_lines(path) == LINES
    path.write_bytes("\ufeffa\n\ufeffb\n".encode())
    assert read_lines(path) == ["a", "\ufeffb"]


def test_gzip_equals_plain(tmp_path) -> None:
    data = "\n".join(LINES).encode()
    (tmp_path / "text").write_bytes(data)
    (tmp_path / "text.gz").write_bytes(gzip.compress(data))
    assert read_lines(tmp_path / "text.gz") == read_lines(str(tmp_path / "text"))


def test_lines_of_a_stream_come_one_at_a_time() -> None:
    stream = io.BytesIO(b"one\ntwo\nb\xe4d\n")
    lines = decode_lines(stream, "standard input")
    assert next(lines) == "one"
    assert stream.tell() == len(b"one\n")
    assert next(lines) == "two"
    with pytest.raises(InputError, match=r"standard input, line 3: not UTF-8 \(byte 2\)"):
        next(lines)


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch) -> None:
    whole = gzip.compress(b"some text\n" * 99)
    contents = {
        "empty": (b"", " is empty"),
        "latin": (b"ok\nok\nStra\xdfe\n", ", line 3: not UTF-8"),
        "cut.gz": (whole[:-9], " is a damaged gzip file"),
        "flipped.gz": (whole[:20] + b"\x00\xff\x00" + whole[23:], " is a damaged gzip file"),
        "plain.gz": (b"not gzip\n", " is not compressed, although its name ends in .gz: rename"),
        "packed": (whole, " is a gzip file: unpack it, or name it .gz"),
        "empty.gz": (gzip.compress(b""), " is empty"),
    }
    for name, (content, complaint) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_lines(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}{complaint}")
    for path, complaint in ((tmp_path / "absent", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=f"cannot be read: {complaint}"):
            read_lines(path)

    def refuse(*_) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(InputError, match="latin cannot be read: Permission denied"):
        read_lines(tmp_path / "latin")


def test_two_files_and_a_tsv_hold_the_same_pairs(tmp_path) -> None:
    source, target, tsv = (tmp_path / name for name in ("s", "t", "both.tsv"))
    source.write_text("a\n\nc\nd\n \ne e\n")
    target.write_text("A\nB\nC\n\u3000\nE\nEE E\n")
    columns = list(zip(read_lines(source), read_lines(target), strict=True))
    tsv.write_text("".join(f"{s}\t{t}\tignored\n" for s, t in columns))
    every = Pairs(["a", "", "c", "d", " ", "e e"], ["A", "B", "C", "\u3000", "E", "EE E"])
    assert read_pairs([source], [target]) == read_pairs(tsv=[tsv]) == every
    for reader in (ParallelFiles(source, target), TsvFile(tsv), InMemoryPairs(every)):
        assert list(reader) == list(reader) == columns
    assert len(InMemoryPairs(every)) == 6


@pytest.mark.parametrize("columns", [(1, 2), (3, 1)], ids=str)
def test_a_blank_line_of_a_tsv_is_a_pair_without_text(columns: tuple[int, int], tmp_path) -> None:
    path = tmp_path / "blank.tsv"
    path.write_text("a\tb\ta\n\nc\t\t\n \n")
    source, target = (["abac"[column - 1], "", ("c", "", "")[column - 1], ""] for column in columns)
    assert read_pairs(tsv=[path], columns=columns) == Pairs(source, target)


def test_several_files_follow_each_other(tmp_path) -> None:
    texts = {"a": "1\n2\n", "b": "3\n", "A": "one\ntwo\n", "B": "three\n"}
    for name, text in texts.items():
        with gzip.open(tmp_path / f"{name}.gz", "wt") as file:
            file.write(text)
    a, b, A, B = (tmp_path / f"{name}.gz" for name in texts)
    assert read_pairs([a, b], [A, B]) == Pairs(["1", "2", "3"], ["one", "two", "three"])
    with pytest.raises(InputError, match=rf"{a} has 2 lines but {B} has 1"):
        read_pairs([a, b], [B, A])
    with pytest.raises(InputError, match="as many source files as target files"):
        read_pairs([a, b], [A])


@pytest.mark.parametrize("columns", [*itertools.product((1, 2, 3), repeat=2)], ids=str)
def test_any_two_columns_of_a_tsv(columns: tuple[int, int], tmp_path) -> None:
    rows = [("a", "b", "c"), ("d", "", "f")]
    path = tmp_path / "three.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    source, target = ([row[column - 1] for row in rows] for column in columns)
    assert read_pairs(tsv=[path], columns=columns) == Pairs(source, target)


def test_a_line_is_there_before_the_next_is_read(tmp_path) -> None:
    (tmp_path / "text").write_bytes(b"fine\nb\xe4d\n")
    lines = stream_lines(tmp_path / "text")
    assert next(lines) == "fine"
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        next(lines)


def test_pairs_that_do_not_match_are_refused(tmp_path) -> None:
    source, target, tsv = (tmp_path / name for name in ("s", "t", "both.tsv"))
    source.write_text("a\nb\nc\n")
    target.write_text("A\nB\n")
    with pytest.raises(InputError, match=rf"{source} has 3 lines but {target} has 2"):
        read_pairs([source], [target])
    with pytest.raises(InputError, match=rf"{target} has 2 lines but {source} has 3"):
        read_all(ParallelFiles(target, source))
    tsv.write_text("a\tb\nno tab\n")
    with pytest.raises(InputError, match=rf"{tsv}, line 2 has 1 column between tabs"):
        read_pairs(tsv=[tsv])
    tsv.write_text("a\tb\tc\na\tb\n")
    with pytest.raises(InputError, match=r"line 2 has 2 columns .* \(1, 3\) asks for column 3"):
        read_pairs(tsv=[tsv], columns=(1, 3))
    for given in ({}, {"source": [source]}, {"source": [source], "target": [target], "tsv": [tsv]}):
        with pytest.raises(InputError, match="as many source files as target files, or only tsv"):
            read_pairs(**given)
