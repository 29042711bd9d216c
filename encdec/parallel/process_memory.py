"""Memory that this process holds and does not need."""

import contextlib
import ctypes
from pathlib import Path

import jax

_MAPS = Path("/proc/self/maps")
_MOST_MAPS = Path("/proc/sys/vm/max_map_count")


def trim_heap() -> None:
    """Gives memory that was freed back to the system, where the C library can (glibc).

    What compiling frees lies between what is kept, so it would not be given back, and the arrays
    of the next batches often do not fit there.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def forget_programs() -> None:
    """Forgets all compiled programs if they are so many that the next ones could end the process.

    Each takes dozens of memory mappings. Linux allows a process some ten thousands, and where one
    more is needed, compiling fails with a segmentation fault. Programs that are needed again come
    from the cache of compiled programs, or are compiled again.
    """
    with contextlib.suppress(OSError, ValueError):
        if _MAPS.read_bytes().count(b"\n") > int(_MOST_MAPS.read_text()) // 2:
            jax.clear_caches()
