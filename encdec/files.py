"""Files and folders that are written completely or not at all.

Each is written under a temporary name in the same folder and renamed at the end: a reader never
sees half of it, and a failure leaves what was there before. The temporary name is unique, so that
two commands with the same target do not write to one file, and the last to finish wins.
"""

import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from encdec.types import InputError

_SUFFIX = ".tmp"
_DESCRIPTOR = re.compile(r"(?:/dev|/dev/fd|/proc/self/fd)/(\d+|(?<=/dev/)std(?:out|err))")
"""The names of what this process has open."""

_LINE_BREAKS = dict.fromkeys(map(ord, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ")

_JSON_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}
"""Line breaks that JSON allows in a string."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a binary file that takes the place of `path` when the block ends without an error.

    A symbolic link is followed and stays; the file keeps its permissions. What is neither a file
    nor a folder (a pipe, /dev/null) cannot be replaced, so it is written to directly, as is an open
    file of this process (/dev/stdout, /dev/fd/3), from where that one is.

    Raises:
      OSError: the file cannot be written; what `path` held before is unchanged.
    """
    if descriptor := _DESCRIPTOR.fullmatch(str(path)):
        number = {"stdout": 1, "stderr": 2}.get(descriptor[1]) or int(descriptor[1])
        with os.fdopen(os.dup(number), "wb") as file:
            yield file
        return
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    temporary = _temporary(path)
    file = temporary.open("xb")
    try:
        with file:
            if path.exists():
                shutil.copymode(path, temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())  # the content reaches the disk before the name does
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replaces a UTF-8 text file by `atomic_write`.

    Raises:
      OSError: it cannot be written; what `path` held before is unchanged.
    """
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Makes an empty folder that is renamed to `path` when the block ends without an error.

    After an error it is removed.

    Raises:
      OSError: it cannot be made, or `path` exists and is not an empty folder.
    """
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def leftovers(path: Path) -> list[Path]:
    """Temporary files and folders of `path`, of a running process or left by a killed one.

    Raises:
      OSError: the folder of `path` cannot be read.
    """
    name = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{8}}{re.escape(_SUFFIX)}")
    return [file for file in path.parent.iterdir() if name.fullmatch(file.name)]


def given_path(name: str, path: Any) -> Path:
    """The path that a caller passes as `name`.

    Raises:
      InputError: it is neither a str nor a path of text.
    """
    if not isinstance(path, str | Path):
        raise InputError(
            f"{name} = {shortened(path)} is a {type(path).__name__}: give a str or a Path"
        )
    return Path(path)


def one_line(text: str) -> str:
    """A text with a space for each character that a reader may take for the end of a line."""
    return text.translate(_LINE_BREAKS)


def json_text(tree: Any) -> str:
    """A value as JSON in one line, also for readers that end lines at other line breaks too."""
    return json.dumps(tree, ensure_ascii=False).translate(_JSON_ESCAPES)


def finite(x: float) -> float | None:
    """The number for JSON, which has no infinity and no NaN: None for these."""
    return x if math.isfinite(x) else None


def shortened(value: object) -> str:
    """A value as Python writes it, in fewer than 60 characters, for messages."""
    text = repr(value)
    return text if len(text) < 60 else f"{text[:56]}..."


def parse_json(text: str | bytes) -> Any:
    """The JSON values in a text that may be damaged.

    Raises:
      ValueError: it is not JSON, or nested deeper than Python's reader goes.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def cache_folder() -> Path:
    """The folder of files that can be made again: $XDG_CACHE_HOME/encdec or ~/.cache/encdec."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "encdec"


def _temporary(path: Path) -> Path:
    """A name in the folder of `path` that no other process uses."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{_SUFFIX}")
