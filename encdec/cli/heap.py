"""Memory of this process that it does not use any more."""

import contextlib
import ctypes


def trim_heap() -> None:
    """Gives memory that was freed back to the system, where the C library can (glibc).

    What compiling frees lies between what is kept, so it would not be given back, and the arrays
    of the next batches often do not fit there.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
