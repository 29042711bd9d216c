"""Memory that this process holds and does not need."""

import contextlib
import ctypes
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_MOST_MAPS = Path("/proc/sys/vm/max_map_count")

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
"""Parameters of the C function `mallopt`, from glibc's `malloc.h`."""
_SMALL = 2**28
"""Bytes of arrays that a process holds for long, up to which it may keep what it frees."""


def keep_freed_memory() -> None:
    """Makes this process keep the memory that it frees, where the C library can (glibc).

    By default large arrays get memory from the system and give it back when they are freed, and the
    system fills every page with zeros before it gives it out. A training step on a CPU frees all
    that it takes, so this took a fifth of its time. `trim_heap` gives back what is kept.

    Only the main heap can be kept, so all threads share it. Those that have another one already go
    on with it: call this before JAX computes anything. Threads that compile wait for each other at
    this heap, and a search gains nothing: this is for training.
    """
    _set_malloc({_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1})


def keep_less_beside(held: int) -> None:
    """Ends what `keep_freed_memory` began where a process holds many bytes of arrays.

    A freed array that is a few bytes too small for the next one is kept for nothing. With a large
    model this doubled the memory, and there its products take most of the time.

    Args:
      held: bytes of parameters, or of a train state.
    """
    if held > _SMALL:
        # What glibc's defaults grow to by themselves.
        _set_malloc({_MMAP_MAX: 2**16, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26})
        trim_heap()


def _set_malloc(parameters: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in parameters.items():
            mallopt(name, value)


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
    import jax

    with contextlib.suppress(OSError, ValueError):
        if _MAPS.read_bytes().count(b"\n") > int(_MOST_MAPS.read_text()) // 2:
            jax.clear_caches()
