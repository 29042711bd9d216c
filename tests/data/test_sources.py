import gzip
import io
import re
from collections import Counter

import pytest

from encdec.data.sources import (
    Pairs,
    decode_lines,
    digest,
    hold_out,
    read_lines,
    read_pairs,
    without_blanks,
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
        "cut.gz": (whole[:-9], " is no whole gzip file"),
        "flipped.gz": (whole[:20] + b"\x00\xff\x00" + whole[23:], " is no whole gzip file"),
        "plain.gz": (b"not gzip\n", " is no whole gzip file"),
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
    columns = zip(read_lines(source), read_lines(target), strict=True)
    tsv.write_text("".join(f"{s}\t{t}\tignored\n" for s, t in columns))
    every = Pairs(["a", "", "c", "d", " ", "e e"], ["A", "B", "C", "\u3000", "E", "EE E"])
    assert read_pairs([source], [target]) == read_pairs(tsv=[tsv]) == every
    assert without_blanks(every) == (Pairs(["a", "c", "e e"], ["A", "C", "EE E"]), 3)


def test_pairs_that_do_not_match_are_refused(tmp_path) -> None:
    source, target, tsv = (tmp_path / name for name in ("s", "t", "both.tsv"))
    source.write_text("a\nb\nc\n")
    target.write_text("A\nB\n")
    with pytest.raises(InputError, match=rf"{source} has 3 lines but {target} has 2"):
        read_pairs([source], [target])
    tsv.write_text("a\tb\nno tab\n")
    with pytest.raises(InputError, match=rf"{tsv}, line 2: 1 columns, no 2th"):
        read_pairs(tsv=[tsv])
    tsv.write_text("a\t\n\tb\n")
    with pytest.raises(InputError, match="no pair of the corpus has text on both sides"):
        without_blanks(read_pairs(tsv=[tsv]))
    for given in ({}, {"source": [source]}, {"source": [source], "target": [target], "tsv": [tsv]}):
        with pytest.raises(
            InputError, match="give source and target, as many files of each, or tsv alone"
        ):
            read_pairs(**given)


def repeated(n: int) -> Pairs:
    """n pairs; every third source text stands there several times."""
    src = [f"s{i // 3 if i % 3 == 0 else i + n}" for i in range(n)]
    src = [f"s{i % 7}" if i % 11 == 0 else text for i, text in enumerate(src)]
    return Pairs(src, [f"t{i}" for i in range(n)])


@pytest.mark.parametrize(("count", "expected"), [(13, 13), (1000, 41)])
def test_held_out_sources_never_stand_in_training(count: int, expected: int) -> None:
    pairs = repeated(413)
    train, held = hold_out(pairs, count, seed=5)
    assert not set(train.src) & set(held.src)
    assert len(held.src) == expected
    everything = Counter(zip(*train, strict=True)) + Counter(zip(*held, strict=True))
    assert everything == Counter(zip(*pairs, strict=True))
    assert hold_out(pairs, count, seed=5) == (train, held)
    assert hold_out(pairs, count, seed=6) != (train, held)


def test_a_source_too_frequent_to_hold_out_stays() -> None:
    pairs = Pairs(["same"] * 37 + ["a", "b", "c"], [f"t{i}" for i in range(40)])
    train, held = hold_out(pairs, 4, seed=0)
    assert sorted(held.src) == ["a", "b", "c"]
    assert train.src == ["same"] * 37
    for few in (Pairs(["same"] * 40, pairs.tgt), Pairs(["a"] * 9, ["b"] * 9)):
        with pytest.raises(InputError, match="too few to hold any out"):
            hold_out(few, 4, seed=0)


def test_no_two_corpora_share_a_digest() -> None:
    corpora = [
        Pairs(["ab", "c"], ["d", "e"]),
        Pairs(["a", "bc"], ["d", "e"]),
        Pairs(["ab", "c", "d"], ["e"]),
        Pairs(["ab\nc"], ["d", "e"]),
        Pairs(["d", "e"], ["ab", "c"]),
        Pairs(["c", "ab"], ["d", "e"]),
        Pairs(["ab", "c", ""], ["d", "e", ""]),
        Pairs([], []),
        Pairs([""], [""]),
    ]
    assert len({digest(corpus) for corpus in corpora}) == len(corpora)
    assert digest(corpora[0]) == digest(Pairs(["ab", "c"], ["d", "e"]))
    assert re.fullmatch("[0-9a-f]{64}", digest(corpora[0]))
