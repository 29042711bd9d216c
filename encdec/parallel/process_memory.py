"""Memory that this process holds and does not need."""

import contextlib
import ctypes
from pathlib import Path

import jax

_MAPS = Path("/proc/self/maps")
_MOST_MAPS = Path("/proc/sys/vm/max_map_count")


def give_back() -> None:
    """Gives memory back to the system, where it is Linux; for who works on and on.

    What compiling frees lies between what is kept, so the C library would not give it back, and
    the arrays of the next batches often do not fit there.

    A compiled program takes dozens of memory mappings. The system allows a process some ten
    thousands, and one more ends it: before that all programs are forgotten. Those that are needed
    again come from the cache of compiled programs.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError, ValueError):
        if _MAPS.read_bytes().count(b"\n") > int(_MOST_MAPS.read_text()) // 2:
            jax.clear_caches()
