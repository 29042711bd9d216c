"""Where lines of text go: stdout, or a file whole or not at all."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from encdec.types import InputError


@contextmanager
def writer(path: Path | None, inputs: Iterable[Path] = ()) -> Iterator[TextIO]:
    """A file to write to, stdout for None. An older file stands until the new one is whole.

    Raises:
      InputError: it is one of the inputs, or cannot be written.
    """
    if path is None:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield sys.stdout
        return
    if any(path.exists() and one.exists() and path.samefile(one) for one in inputs):
        raise InputError(f"--output {path} is the input or a file of the run: name another file")
    unfinished = path.with_name(path.name + ".part")  # a failure leaves an older file alone
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as out:
            yield out
        unfinished.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def cache_folder() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/encdec or ~/.cache/encdec."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "encdec"
