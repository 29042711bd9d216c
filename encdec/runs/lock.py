"""The lock of a run folder: one process at a time trains a run, or makes one of a model.

    lock    JSON: the host and the id of that process; removed when it ends

The process also holds the system's lock of the file, which the system frees when the process dies,
so that a file which a killed process left is taken over. Not every file system shares such locks
between hosts, so the process also touches the file every minute, and that of another host is taken
over once it has not been touched for ten minutes.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import BinaryIO

from encdec.files import parse_json
from encdec.types import InputError

FILE = "lock"
_TOUCH_SECONDS = 60.0
_DEAD_AFTER = 600.0
"""Seconds without a touch after which a process on another host counts as dead; clocks differ."""


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the lock of a run folder, which is made if it does not exist.

    Folders that are made here and still empty at the end are removed.

    Raises:
      InputError: another process holds the lock, or the folder cannot be written.
    """
    try:
        new = [folder for folder in (run, *run.parents) if not folder.exists()]
        run.mkdir(parents=True, exist_ok=True)
        file = _acquire(run / FILE)
    except OSError as error:
        raise InputError(f"run folder {run} cannot be written: {error.strerror}") from error
    ended = Event()
    Thread(target=_touch, args=(run / FILE, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        # Unlinked before the system's lock is freed, so that no other process has the same file.
        with suppress(OSError):
            (run / FILE).unlink()
        file.close()
        with suppress(OSError):  # one holds a run now
            for folder in new:
                folder.rmdir()


def _touch(path: Path, ended: Event) -> None:
    """Sets the time of a file again and again until the event."""
    while not ended.wait(_TOUCH_SECONDS):
        with suppress(OSError):
            os.utime(path)


def _acquire(path: Path) -> BinaryIO:
    """Opens and locks the file, and writes this process into it."""
    while True:
        file = path.open("ab+", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(path, file):  # its holder has removed it since it was opened
                file.close()
                continue
            owner = _owner(file)
            if owner is None and path.stat().st_size:
                raise InputError(f"{path} is not the lock of a run: move it elsewhere")
            untouched = time.time() - path.stat().st_mtime
            if owner and owner[0] != socket.gethostname() and untouched < _DEAD_AFTER:
                raise _refusal(path, owner, f", or delete {path} if that has died")
        except BlockingIOError:
            error = _refusal(path, _owner(file), "")
            file.close()
            raise error from None
        except BaseException:
            file.close()
            raise
        file.truncate(0)
        file.write(
            json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode() + b"\n"
        )
        return file


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _owner(file: BinaryIO) -> tuple[str, int] | None:
    """The host and the process in the file; None if nobody is in it."""
    file.seek(0)
    try:
        tree = parse_json(file.read())
        return str(tree["host"]), int(tree["process"])
    except (ValueError, KeyError, TypeError):
        return None


def _refusal(path: Path, owner: tuple[str, int] | None, remedy: str) -> InputError:
    who = f"process {owner[1]} on {owner[0]}" if owner else "another process"
    return InputError(f"{path.parent} is being written by {who}: wait until it has ended{remedy}")
