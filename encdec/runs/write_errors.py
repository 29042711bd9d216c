"""What the libraries that write checkpoints say when they cannot."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_tracebacks() -> Iterator[None]:
    """Keeps Orbax and TensorStore from printing errors of their threads, which are raised too.

    After a failed write TensorStore calls back to an event loop that Orbax has closed, sometimes
    late: where the block ends with an error, such calls are hidden as long as the process lives.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    was_disabled = logger.disabled

    def show(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.disabled, sys.unraisablehook = True, show
    try:
        yield
        sys.unraisablehook = hook
    finally:
        logger.disabled = was_disabled


def reason(error: BaseException) -> str:
    """What the system said, if it is in an error or its causes; else the type of the error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            if os.strerror(number) in str(cause):
                return os.strerror(number)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
