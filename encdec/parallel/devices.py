"""The devices: how many there are, how much memory they have, how precise their arithmetic is."""

import os
from pathlib import Path
from typing import Any, Literal

import jax
from filelock import FileLock, Timeout

from encdec.types import Precision

_MOST_KEPT = 2 * 2**30
"""Bytes of compiled programs in their folder."""
_LOCK_SECONDS = 10
"""Seconds to wait for another process that uses the folder, as JAX does."""


def device_count() -> int:
    """The number of devices of all processes."""
    return jax.device_count()


def core_count() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_device() -> Any:
    """The host as a device, for what may be too large for another one; None, which means the
    default device, where JAX was told to leave the host out (JAX_PLATFORMS)."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def chosen_precision(choice: Literal["auto"] | Precision) -> Precision:
    """The precision of matrix products; "auto" is float32 on a CPU and bfloat16 elsewhere."""
    if choice == "auto":
        return "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return choice


def device_memory() -> int:
    """The bytes of memory of one device; the devices of a CPU divide that of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return host_memory() // jax.local_device_count()


def host_memory() -> int:
    """The bytes of memory of the machine, or of its container if that has less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    container = Path("/sys/fs/cgroup/memory.max")
    if container.exists() and (text := container.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


def keep_compiled_programs(folder: Path) -> None:
    """Stores compiled programs in a folder, so that a second start does not compile them again.

    The folder is kept below two GiB: what was used last stays.
    """
    if getattr(jax.config, "jax_compilation_cache_dir"):  # noqa: B009  (mypy cannot see it)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if _remove_cut_programs(folder):
        jax.config.update("jax_compilation_cache_max_size", _MOST_KEPT)


def _remove_cut_programs(folder: Path) -> bool:
    """Removes programs whose writer was killed or met a full disk, which JAX would read, complain
    about and never replace: where it keeps a size, it writes when a program was used after it.

    Returns:
      Whether the folder can be locked, as JAX does where it keeps a size.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lockfile", timeout=_LOCK_SECONDS):  # JAX's own lock
            names = set(os.listdir(folder))
            for name in names:
                if name.endswith("-cache") and f"{name.removesuffix('-cache')}-atime" not in names:
                    (folder / name).unlink()
    except (OSError, Timeout, NotImplementedError):
        return False
    return True
