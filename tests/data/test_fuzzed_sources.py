"""Files of any bytes: their pairs, or one error that names the file and the line."""

import gzip
from collections.abc import Iterable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from encdec.data.sources import Pair, ParallelFiles, TsvFile, read_lines
from tests.fuzzing import damaged, refusal

PARTS = st.sampled_from([b"\n", b"\r\n", b"\r", b"\t", b" ", b"a", b"\xc3\xa9", b"\xe2\x80\xa8"])
ENDS = st.sampled_from([b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\x00", b""])
CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.lists(PARTS).map(b"".join),
    st.builds(lambda parts, end: b"".join(parts) + end, st.lists(PARTS), ENDS),
)


def lines_of(data: bytes) -> list[str] | int:
    """The lines of a file as the docstrings promise them, or the number of the first bad one."""
    parts = data.removesuffix(b"\n").split(b"\n")
    parts[0] = parts[0].removeprefix(b"\xef\xbb\xbf")
    lines = []
    for number, part in enumerate(parts, 1):
        try:
            lines.append(part.removesuffix(b"\r").decode())
        except UnicodeDecodeError:
            return number
    return lines


def refused(reader: Iterable[Pair], path: Path) -> str:
    """The line that reading ends with, which names the file."""
    said = refusal(lambda: list(reader))
    assert said is not None
    assert "\n" not in said
    assert str(path) in said
    return said


@given(CONTENTS)
def test_a_tsv_file_gives_pairs_or_its_bad_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(data)
    lines, reader = lines_of(data), TsvFile(path)
    if not data:
        assert "is empty" in refused(reader, path)
        return
    pairs: list[Pair] = []
    for number, line in enumerate(lines if isinstance(lines, list) else [], 1):
        cells = line.split("\t")
        if line.strip() and len(cells) < 2:
            assert f"line {number} has 1 column" in refused(reader, path)
            return
        pairs.append((cells[0], cells[1]) if line.strip() else ("", ""))
    if isinstance(lines, int):
        assert f"{path}, line " in refused(reader, path)
    else:
        assert list(reader) == pairs


@given(CONTENTS, CONTENTS)
def test_parallel_files_give_pairs_or_an_error(tmp_path: Path, one: bytes, two: bytes) -> None:
    source, target = tmp_path / "text.de", tmp_path / "text.en"
    source.write_bytes(one)
    target.write_bytes(two)
    reader = ParallelFiles(source, target)
    read = lines_of(one), lines_of(two)
    if all(isinstance(lines, list) for lines in read) and one and two:
        a, b = read
        assert isinstance(a, list)
        assert isinstance(b, list)
        if len(a) == len(b):
            assert list(reader) == list(zip(a, b, strict=True))
        else:
            counts = f"has {len(a)} lines but {target} has {len(b)}"
            assert counts in refused(reader, source)
    else:
        refused(reader, tmp_path)


@given(st.one_of(st.binary(max_size=40), damaged(gzip.compress(b"one line\n" * 30, mtime=0))))
def test_a_gzip_file_is_read_or_called_damaged(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "text.gz"
    path.write_bytes(data)
    said = refusal(lambda: read_lines(path))
    if said is None:
        assert read_lines(path) == lines_of(gzip.decompress(data))
    else:
        assert said.startswith(str(path))
