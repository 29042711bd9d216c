"""Windows of lines: many at a time from a file, and what has arrived from a pipe or a terminal."""

import os
import select
import stat
import sys
from collections.abc import Iterator
from io import FileIO
from itertools import islice
from pathlib import Path
from queue import Queue
from threading import Thread

from encdec.data.sources import decode_lines, stream_lines
from encdec.types import InputError

MOST_LINES = 4096
"""The most lines in a window."""
_FIRST_LINES = 256
"""Lines in the first window of a file; each further one has twice as many, up to the most."""
_CHUNK = 1 << 16
"""Bytes that are read at once: as many as a pipe holds."""
_CHUNKS_AHEAD = 64
"""Chunks that are read before their lines are asked for."""


def line_windows(path: Path | None) -> Iterator[list[str]]:
    """Yields the lines of a file or of stdin, many at a time.

    A regular file is read in windows of 256, 512 and more lines, up to 4,096: the first are
    finished soon, and large ones have more lines of a length. From a pipe, a terminal or a socket a
    window is what has arrived: at least one line, and at most 4,096. They are read in the
    background, so that the lines which arrive while a window is at work make the next one.

    Args:
      path: the file, unpacked if its name ends in `.gz` (then in full windows, even from a pipe);
        None for stdin.

    Raises:
      InputError: the input cannot be read or is not UTF-8, or a named regular file is empty.
    """
    name = "stdin" if path is None else str(path)
    try:
        stream = _unbuffered(path)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from error
    if stream is None:
        lines = stream_lines(path) if path else decode_lines(sys.stdin.buffer, name)
        size = min(_FIRST_LINES, MOST_LINES)
        while window := list(islice(lines, size)):
            yield window
            size = min(2 * size, MOST_LINES)
        return
    first = 1
    for encoded in _arriving(stream, name):
        yield list(decode_lines(encoded, name, first))
        first += len(encoded)


def _unbuffered(path: Path | None) -> FileIO | None:
    """The input if its lines may arrive one by one; None for a regular file, or one to unpack.

    Raises:
      InputError: stdin is closed.
      OSError: the file cannot be opened.
    """
    if path is not None:
        arrives = path.exists() and not path.is_file() and path.suffix != ".gz"
        return FileIO(path) if arrives else None
    if sys.stdin is None:
        raise InputError("stdin is closed: name a file by --input, or open it")
    try:
        stream = FileIO(sys.stdin.fileno(), closefd=False)
    except OSError:  # something in memory has taken the place of stdin
        return None
    return None if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else stream


def _arriving(stream: FileIO, name: str) -> Iterator[list[bytes]]:
    """Yields the lines that have arrived, without their ends, and waits where there are none."""
    chunks: Queue[list[bytes] | OSError | None] = Queue(_CHUNKS_AHEAD)
    # A process that ends does not wait for this thread, which may wait for a line for ever.
    Thread(target=_read, args=(stream, chunks), daemon=True).start()
    lines: list[bytes] = []
    open_ = True
    while open_ or lines:
        while open_ and len(lines) < MOST_LINES and not (lines and chunks.empty()):
            chunk = chunks.get()
            if isinstance(chunk, OSError):
                raise InputError(f"{name} cannot be read: {chunk.strerror}") from chunk
            lines += chunk or []
            open_ = chunk is not None
        if lines:
            yield lines[:MOST_LINES]
            lines = lines[MOST_LINES:]


def _read(stream: FileIO, chunks: "Queue[list[bytes] | OSError | None]") -> None:
    """Reads a stream to its end: puts lists of whole lines, then None, or an error."""
    begun: list[bytes] = []  # parts of a line whose end has not arrived
    try:
        with stream:
            while (data := stream.read(_CHUNK)) != b"":
                if data is None:  # nothing yet, from a stream that does not block
                    select.select([stream], [], [])
                    continue
                head, *others = data.split(b"\n")
                begun.append(head)
                if others:
                    chunks.put([b"".join(begun), *others[:-1]])
                    begun = others[-1:]
        if last := b"".join(begun):
            chunks.put([last])
        chunks.put(None)
    except OSError as error:
        chunks.put(error)
