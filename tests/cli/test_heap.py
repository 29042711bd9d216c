"""Memory that is freed is given back to the system."""

import ctypes
from pathlib import Path

import pytest

from encdec.cli.heap import trim_heap


def megabytes() -> int:
    """The memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc has it")
def test_freed_memory_is_given_back() -> None:
    kept = [bytes(4000) for _ in range(50_000)]  # each too small to be mapped by itself
    held = megabytes()
    del kept[1:-1]  # what lies between two that are kept
    trim_heap()
    assert megabytes() < held - 100
    assert len(kept) == 2
