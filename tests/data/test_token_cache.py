"""The token cache: what it returns and when it is used, after damage and kills too."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encdec.data import token_cache as cache
from encdec.data import vocabulary
from encdec.data.dates import dates
from encdec.data.simple_vocabularies import TableVocabulary
from encdec.data.sources import InMemoryPairs
from encdec.data.token_cache import cached_examples
from encdec.data.tokens import Examples, encode_pairs
from encdec.types import InputError

PAIRS = dates(50, 0).train
CHARS = tuple(vocabulary.build("chars", side, None) for side in PAIRS)


class Reads:
    """A stream that counts how often it is read, and may be cut short by an error."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        self.times, self._error = 0, error

    def __len__(self) -> int:
        return len(PAIRS.src)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self.times += 1
        for i, pair in enumerate(InMemoryPairs(PAIRS)):
            if self._error and i == 30:
                raise self._error
            yield pair


def opened(root: Path, pairs=None, vocabularies=CHARS, corpus: str = "a") -> tuple[Examples, list]:
    """Opens the cache; returns its tokens and the lines of `say`, and checks the progress."""
    lines: list[str] = []
    done: list[int] = []
    pairs = Reads() if pairs is None else pairs
    examples = cached_examples(
        pairs, corpus, *vocabularies, root, progress=done.append, say=lines.append
    )
    assert sum(done) in (0, len(pairs))
    return examples, lines


def same(one: Examples, other: Examples) -> bool:
    return all(
        np.array_equal(a.flat, b.flat) and np.array_equal(a.offsets, b.offsets)
        for a, b in zip(one, other, strict=True)
    )


def test_the_cache_holds_what_encoding_in_memory_gives_and_text_is_read_once(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(cache, "_CHUNK", 7)
    pairs = Reads()
    for _ in range(2):
        examples, lines = opened(tmp_path / "new" / "root", pairs)
        assert same(examples, encode_pairs(PAIRS, *CHARS))
        assert lines == []
        assert {side.flat.dtype for side in examples} == {np.dtype(np.uint16)}
    assert pairs.times == 1
    assert not list((tmp_path / "new" / "root").glob("*.tmp"))


@pytest.mark.parametrize(("size", "dtype"), [(65_535, np.uint16), (65_536, np.int32)])
def test_ids_have_two_bytes_where_both_vocabularies_are_small(tmp_path, size, dtype) -> None:
    large = TableVocabulary("words", tuple(f"w{i}" for i in range(size - 4)))
    last = f"w{size - 5}"
    pairs = InMemoryPairs(type(PAIRS)(["a"], [last]))
    examples, _ = opened(tmp_path, pairs, (CHARS[0], large))
    assert examples.src.flat.dtype == examples.tgt.flat.dtype == dtype
    assert list(examples.tgt[0]) == [size - 1, 2]


def test_each_corpus_and_tokeniser_has_a_cache_of_its_own(tmp_path: Path) -> None:
    pairs = Reads()
    other = vocabulary.build("chars", PAIRS.src, 20)
    cases = [("a", CHARS), ("b", CHARS), ("a", (other, CHARS[1])), ("a", (CHARS[0], other))]
    cases += [("a", CHARS[::-1]), ("a", (vocabulary.build("bytes", [], None), CHARS[1]))]
    for number, (corpus, vocabularies) in enumerate(cases, 1):
        examples, lines = opened(tmp_path, pairs, vocabularies, corpus)
        assert same(examples, encode_pairs(PAIRS, *vocabularies))
        assert (pairs.times, lines) == (number, [])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def rewrite(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | values))


FILES = ("source.tokens", "source.offsets", "target.tokens", "target.offsets")


@pytest.mark.parametrize("harm", [flip, cut, empty, Path.unlink], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", [*FILES, "meta.json"])
def test_a_damaged_cache_is_written_again_with_a_message(tmp_path: Path, name: str, harm) -> None:
    opened(tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    harm(folder / name)
    pairs = Reads()
    examples, (line,) = opened(tmp_path, pairs)
    assert pairs.times == 1
    assert line.startswith(str(folder))
    assert line.endswith("so the text is encoded again")
    assert name in line or "something else" in line
    assert same(examples, encode_pairs(PAIRS, *CHARS))
    assert opened(tmp_path)[1] == []


def test_a_cache_of_something_else_under_its_name_is_not_trusted(tmp_path: Path) -> None:
    opened(tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for change in ({"key": "0" * 64}, {"format": "encdec tokens 0"}, {"files": {}}, {"files": 3}):
        rewrite(folder / "meta.json", **change)
        pairs = Reads()
        _, lines = opened(tmp_path, pairs)
        assert (pairs.times, len(lines)) == (1, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_ends_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch, error) -> None:
    monkeypatch.setattr(cache, "_CHUNK", 7)
    with pytest.raises(error):
        cached_examples(
            Reads(error), "a", *CHARS, tmp_path, progress=lambda n: None, say=lambda line: None
        )
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert opened(tmp_path)[1] == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/tokens \(Not a directory\).* XDG_CACHE_HOME"):
        opened(tmp_path / "file" / "tokens")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache._SideWriter, "add", full)
    with pytest.raises(InputError, match=r"No space left on device.* XDG_CACHE_HOME"):
        opened(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


SCRIPT = """
import sys, time
from pathlib import Path
from encdec.data import token_cache as cache
from encdec.data.sources import InMemoryPairs
from tests.data.test_token_cache import CHARS, PAIRS

root, name = Path(sys.argv[1]), sys.argv[2]
cache._CHUNK = 5

class Held:
    '''Gives all pairs, then waits for a file before it ends.'''
    def __len__(self):
        return len(PAIRS.src)
    def __iter__(self):
        (root / f"reading-{name}").touch()
        yield from InMemoryPairs(PAIRS)
        while not (root / "go").exists():
            time.sleep(0.01)

examples = cache.cached_examples(Held(), "a", *CHARS, root, progress=lambda n: None, say=print)
print(len(examples.src))
"""


def start(root: Path, name: str) -> subprocess.Popen:
    """Another process that makes the cache, but does not end it before root/go is there."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", SCRIPT, str(root), name],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "."},
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_two_processes_one_writes_the_cache_and_one_waits(tmp_path: Path) -> None:
    first = start(tmp_path, "1")
    wait_for(tmp_path / "reading-1", first)
    second = start(tmp_path, "2")
    assert "waiting for it" in second.stdout.readline()
    (tmp_path / "go").touch()
    for process in (first, second):
        assert process.communicate(timeout=60)[0] == "50\n"
        assert process.returncode == 0
    assert not (tmp_path / "reading-2").exists()


def test_what_a_killed_process_left_is_not_trusted_and_its_lock_is_free(tmp_path: Path) -> None:
    process = start(tmp_path, "1")
    wait_for(tmp_path / "reading-1", process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert len(list(tmp_path.glob("*.tmp"))) == 1
    pairs = Reads()
    examples, lines = opened(tmp_path, pairs)
    assert (pairs.times, lines) == (1, [])
    assert same(examples, encode_pairs(PAIRS, *CHARS))
    assert not list(tmp_path.glob("*.tmp"))
