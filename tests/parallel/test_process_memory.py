"""Memory that is freed is given back to the system, and programs do not use up its mappings."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from encdec.parallel.process_memory import trim_heap


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


FULL = """
import mmap
from pathlib import Path
import jax
import jax.numpy as jnp
from encdec.parallel.process_memory import forget_programs

def mappings():
    return Path("/proc/self/maps").read_bytes().count(b"\\n")

def program(number):
    def many(x):
        for _ in range(8):
            x = jnp.tanh(x @ x) + jnp.sort(x, -1)
        return x + number
    return jax.jit(many)

limit = int(Path("/proc/sys/vm/max_map_count").read_text())
kept, held = [], []
while mappings() < limit // 2 - 200:  # as programs would take them
    for _ in range(100):
        held += [mmap.mmap(-1, 4096, prot=mmap.PROT_READ), mmap.mmap(-1, 4096)]
most = 0
for number in range(25):
    kept.append(program(number))
    result = kept[-1](jnp.eye(3) * 0)
    assert (result == number).all()
    forget_programs()
    most = max(most, mappings())
print(most - limit // 2, all((kept[i](jnp.eye(3) * 0) == i).all() for i in range(25)))
"""
"""Compiles more programs than there are mappings for, were half of them all that there are."""


@pytest.mark.skipif(not Path("/proc/sys/vm/max_map_count").exists(), reason="Linux has it")
def test_programs_are_forgotten_before_mappings_run_out() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL], capture_output=True, text=True, timeout=300, check=True
    )
    over, are_right = ended.stdout.split()
    assert int(over) < 200
    assert are_right == "True"


KEPT = """
import ctypes
import resource
import sys
import jax
import jax.numpy as jnp
from encdec.parallel.process_memory import keep_freed_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a fault is a page of 4 KiB
if sys.argv[1] == "keep":
    keep_freed_memory()

@jax.jit
def step(x):  # what is between the two products has 64 MiB
    return jnp.tanh(x @ x.T) @ x

x = jnp.full((4096, 3), 1e-3)
for _ in range(10):  # until the heap has a place for each array
    x = step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    x = step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Counts the page faults of twenty steps."""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc has it")
def test_freed_memory_is_kept() -> None:
    def faults(how: str) -> int:
        ran = subprocess.run([sys.executable, "-c", KEPT, how], capture_output=True, check=True)
        return int(ran.stdout)

    pages = 20 * 64 * 2**20 // 4096
    assert faults("keep") < pages // 3
    assert faults("give back") >= pages
