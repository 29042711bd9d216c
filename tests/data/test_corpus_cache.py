"""A corpus of files is read once; a change of a file is noticed."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encdec.data import corpus_cache
from encdec.data.corpus_cache import CorpusPass, read_once
from encdec.data.holdout import corpus_statistics, holdout_mask
from encdec.data.sources import GivenPairs, Pairs, ParallelFiles, TsvFile

PAIRS = [(f"source {i // 2} ä\u2028", f"target {i}") for i in range(60)]
OLD = 1_700_000_000
"""A time of writing that is long ago."""


@pytest.fixture
def readers(tmp_path: Path) -> tuple[Any, ...]:
    """A TSV file with blank lines, and two parallel files."""
    rows = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
    for name, text in (
        ("a.tsv", f"{rows}\n\n"),
        ("b.src", "".join(f"{source}!\n" for source, _ in PAIRS)),
        ("b.tgt", "".join(f"{target}!\n" for _, target in PAIRS)),
    ):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (OLD, OLD))
    return TsvFile(tmp_path / "a.tsv"), ParallelFiles(tmp_path / "b.src", tmp_path / "b.tgt")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every pass over the text."""
    counted: list[int] = []

    def count(*arguments: Any) -> Any:
        counted.append(1)
        return corpus_statistics(*arguments)

    monkeypatch.setattr(corpus_cache, "corpus_statistics", count)
    return counted


def equal(one: CorpusPass, other: CorpusPass) -> None:
    for a, b in zip(one.statistics[:2], other.statistics[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.statistics[2:] == other.statistics[2:]
    assert one.held_out == other.held_out


@pytest.mark.parametrize("holdout", [None, 6])
def test_a_second_start_reads_nothing(
    readers: tuple[Any, ...], passes: list[int], tmp_path: Path, holdout: int | None
) -> None:
    first = read_once(readers, 0, holdout, tmp_path / "cache")
    second = read_once(readers, 0, holdout, tmp_path / "cache")
    assert len(passes) == 1
    equal(first, second)
    expected = corpus_statistics(readers, 0)
    held = [] if holdout is None else np.flatnonzero(holdout_mask(expected, holdout))
    pairs = [*PAIRS, ("", ""), ("", ""), *((f"{s}!", f"{t}!") for s, t in PAIRS)]
    assert second.held_out == Pairs([pairs[i][0] for i in held], [pairs[i][1] for i in held])
    read_once(readers, 1, holdout, tmp_path / "cache")  # another seed holds out other pairs
    assert len(passes) == 2


def test_a_change_is_noticed(readers: tuple[Any, ...], passes: list[int], tmp_path: Path) -> None:
    root, file = tmp_path / "cache", tmp_path / "a.tsv"
    first = read_once(readers, 0, 6, root)
    text = file.read_text()
    file.write_text(text.replace("target 7\n", "target X\n"))  # of the same size
    os.utime(file, (OLD, OLD))  # and the same time of writing
    second = read_once(readers, 0, 6, root)
    assert len(passes) == 2
    assert first.statistics.digest != second.statistics.digest == corpus_statistics(readers, 0)[3]


def test_a_file_that_was_just_written_is_read_again(passes: list[int], tmp_path: Path) -> None:
    """Its time cannot tell whether it is written once more."""
    (tmp_path / "new.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in PAIRS))
    for _ in range(2):
        read_once([TsvFile(tmp_path / "new.tsv")], 0, 6, tmp_path / "cache")
    assert len(passes) == 2


def test_a_damaged_entry_and_a_folder_that_cannot_be_made(
    readers: tuple[Any, ...], passes: list[int], tmp_path: Path
) -> None:
    first = read_once(readers, 0, 6, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    data = bytearray(entry.read_bytes())
    for damaged in (b"", data[:100], data[:200] + bytes([data[200] ^ 255]) + data[201:]):
        entry.write_bytes(damaged)
        equal(read_once(readers, 0, 6, tmp_path / "cache"), first)
    assert len(passes) == 4
    (tmp_path / "file").touch()
    equal(read_once(readers, 0, 6, tmp_path / "file" / "cache"), first)


def test_pairs_in_memory_are_not_kept(passes: list[int], tmp_path: Path) -> None:
    reader = GivenPairs(PAIRS, "pairs")
    for _ in range(2):
        assert read_once([reader], 0, 6, tmp_path / "cache").held_out.src
    assert len(passes) == 2
    assert not (tmp_path / "cache").exists()
