"""Where the output of a command goes: stdout, a file, a pipe or a device."""

import gzip
import io
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from encdec.files import atomic_write
from encdec.types import InputError

DASH = Path("-")
"""What people call stdin and stdout where a file is asked for."""
STDIN = Path("/dev/stdin")
"""An input, where no file is named: stdin may be one."""


@contextmanager
def writer(path: Path | None, inputs: Iterable[Path] = ()) -> Iterator[TextIO]:
    """Opens the UTF-8 text that a command writes; the path `-` is stdout.

    A file is there when the block ends without an error, and not before; what is no regular file is
    written to as the block goes on. The file is compressed if its name ends in `.gz`.

    Args:
      path: where to; stdout for None.
      inputs: files that the command reads, which its output may not replace.

    Raises:
      InputError: see `check_output`; or the output cannot be written.
      BrokenPipeError: the reader of the output has closed it.
    """
    path = None if path == DASH else path
    if path is not None:
        check_output(path, inputs)
    elif sys.stdout is None:
        raise InputError("stdout is closed: name a file by --output, or open it")
    try:
        if path is None:
            sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
            yield sys.stdout
        else:
            with _removed_if_terminated(), atomic_write(path) as file:
                if path.suffix == ".gz":
                    # Without the time and the name, equal text makes equal files.
                    with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                        yield from _text(packed)
                else:
                    yield from _text(file)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"{path or 'stdout'} cannot be written: {error.strerror}") from error


def check_output(path: Path, inputs: Iterable[Path] = (), option: str = "--output") -> None:
    """Refuses an output that a command may not write, before it has worked for it.

    Args:
      path: the file to write.
      inputs: files that the command reads.
      option: the option that names the file, for the error.

    Raises:
      InputError: it is a folder or in none, cannot be a file, or would replace an input or a file
        of a run folder.
    """
    from encdec.runs.run import run_folder_of

    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a link to itself, or a name that is too long
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    if path.is_dir():
        raise InputError(f"{path} cannot be written: Is a directory")
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path} cannot be written: No such file or directory")
    if not path.is_file():  # nothing would be replaced
        return
    if any(one.exists() and path.samefile(one) for one in inputs):
        raise InputError(f"{option} {path} is an input of this command: name another file")
    if folder := run_folder_of(path):
        raise InputError(
            f"{option} {path} is a file in the run folder {folder}, where nothing is replaced: "
            "name a file elsewhere"
        )


def check_picture(path: Path) -> None:
    """Raises InputError unless a picture can be written: see `check_output`, and its suffix."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"--out {path} cannot be drawn: its name must end in .png or .svg")
    check_output(path, option="--out")


def _text(file: BinaryIO | gzip.GzipFile) -> Iterator[TextIO]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
    yield text
    text.flush()
    text.detach()  # who opened the file closes it


@contextmanager
def _removed_if_terminated() -> Iterator[None]:
    """Meanwhile SIGTERM ends this process as an error does, which removes the temporary file."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
