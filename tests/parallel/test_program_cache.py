"""Compiled programs are kept from start to start, whatever ends the process that writes one."""

import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = """
import sys, time
from pathlib import Path
import jax
import jax.numpy as jnp
from encdec.parallel.devices import keep_compiled_programs

keep_compiled_programs(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3))).block_until_ready()
"""


def start(folder: Path) -> str:
    """What a process says that compiles a program."""
    words = [sys.executable, "-c", COMPILE, str(folder)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=200, check=True)
    return ended.stdout + ended.stderr


def programs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*-cache")}


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_program_that_was_cut_short_is_written_anew(tmp_path: Path, size: int) -> None:
    """A process was killed, or the disk was full, while it wrote a program."""
    folder = tmp_path / "cache"
    start(folder)
    whole = programs(folder)
    assert whole
    for name, content in whole.items():
        (folder / name).write_bytes(content[:size])
        (folder / f"{name.removesuffix('-cache')}-atime").unlink()
    assert start(folder) == ""
    assert programs(folder).keys() == whole.keys()
    assert all(len(content) > 100 for content in programs(folder).values())


def test_what_was_compiled_is_read_by_the_next_start(tmp_path: Path) -> None:
    start(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-cache")}
    start(tmp_path)
    assert times
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-cache")}


def test_a_folder_that_cannot_be_locked_is_no_error(tmp_path: Path) -> None:
    (tmp_path / ".lockfile").mkdir()
    assert "Traceback" not in start(tmp_path)
