"""Windows of lines from pipes, terminals and files: what has arrived, in order, whole."""

import gzip
import io
import os
import pty
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

from encdec.data.line_windows import MOST_LINES, line_windows
from encdec.types import InputError


class Reader:
    """The windows of an input, read in the background, so that a test does not wait for ever."""

    def __init__(self, windows: Iterator[list[str]]) -> None:
        self._windows: Queue[list[str] | None] = Queue()
        threading.Thread(target=self._read, args=(windows,), daemon=True).start()

    def _read(self, windows: Iterator[list[str]]) -> None:
        for window in windows:
            self._windows.put(window)
        self._windows.put(None)

    def next(self) -> list[str] | None:
        return self._windows.get(timeout=30)

    def has_none(self) -> bool:
        with pytest.raises(Empty):
            self._windows.get(timeout=0.1)
        return True


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_a_line_comes_before_the_next_is_sent(fifo: Path) -> None:
    reader = Reader(line_windows(fifo))
    with fifo.open("wb", buffering=0) as pipe:
        for text in ("eins", "", "zwei € drei\u2028vier"):
            pipe.write(f"{text}\n".encode())
            assert reader.next() == [text]
        pipe.write("fü".encode()[:-1])
        assert reader.has_none()  # half a line, that ends within a character
        pipe.write("ü".encode()[1:] + b"nf\r\nsechs")
        assert reader.next() == ["fünf"]
    assert reader.next() == ["sechs"]
    assert reader.next() is None


def test_lines_that_wait_come_together(fifo: Path) -> None:
    lines = [f"{i}" for i in range(2 * MOST_LINES + 5)]  # fewer bytes than a pipe holds
    windows = line_windows(fifo)
    threading.Thread(target=lambda: fifo.write_text("\n".join(lines))).start()
    found = [*windows]
    assert [line for window in found for line in window] == lines
    assert max(map(len, found)) <= MOST_LINES
    assert len(found) < 50


def test_a_terminal_is_read_line_by_line() -> None:
    main, side = pty.openpty()
    reader = Reader(line_windows(Path(os.ttyname(side))))
    for text in ("eins", "zwei drei"):
        os.write(main, f"{text}\n".encode())
        assert reader.next() == [text]
    os.write(main, b"\x04")  # Ctrl-D ends the input
    assert reader.next() is None
    os.close(side)
    os.close(main)


def test_any_bytes_in_any_parts(fifo: Path) -> None:
    """As Python's own reader splits them, whatever parts they arrive in."""
    random.seed(0)
    text = "".join(random.choices("aü€\r\u2028 \n", weights=[9, 9, 9, 1, 1, 3, 3], k=200_000))
    encoded = f"\ufeff{text}".encode()

    def write() -> None:
        rest = encoded
        with fifo.open("wb", buffering=0) as pipe:
            while rest:
                size = random.choice((1, 7, 4096, 100_000))
                pipe.write(rest[:size])
                rest = rest[size:]

    threading.Thread(target=write).start()
    found = [line for window in line_windows(fifo) for line in window]
    with io.StringIO(text, newline="\n") as oracle:
        assert found == [line.removesuffix("\n").removesuffix("\r") for line in oracle]


def test_files_come_in_windows_that_grow(tmp_path: Path) -> None:
    lines = [f"{i}" for i in range(4099)]
    (tmp_path / "file").write_text("\n".join(lines))
    with gzip.open(tmp_path / "file.gz", "wt") as file:
        file.write("\n".join(lines))
    for name in ("file", "file.gz"):
        windows = [*line_windows(tmp_path / name)]
        assert [line for window in windows for line in window] == lines
        assert [*map(len, windows)] == [256, 512, 1024, 2048, 259]


def test_a_bad_line_is_named_by_its_number(fifo: Path) -> None:
    def write() -> None:
        with fifo.open("wb", buffering=0) as pipe:
            pipe.write(b"a\n" * 70_000 + b"\xff\n")

    threading.Thread(target=write).start()
    with pytest.raises(InputError, match=r"fifo, line 70001: not UTF-8 \(byte 1\)"):
        [*line_windows(fifo)]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "no", "No such file")):
        with pytest.raises(InputError, match=f"cannot be read: {reason}"):
            [*line_windows(path)]
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="is empty"):
        [*line_windows(tmp_path / "empty")]
