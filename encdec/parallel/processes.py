"""Several processes that train one run: how they agree and wait.

With a single process every function returns at once.
"""

import hashlib
import itertools
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from encdec.types import InputError

Result = TypeVar("Result")

_BARRIER_TIMEOUT = 24 * 3600
"""Seconds to wait at a barrier for a process that is alive: tokenizing can take hours."""
_barriers = itertools.count()
"""Numbers the barriers, because the coordinator accepts each barrier's name only once."""
_plans = itertools.count()
"""Numbers the plans of this process; all processes make them in the same order."""
_AHEAD = 4
"""Steps from a wish to its plan. A process can be three steps ahead of another: it starts no step
before the device has finished the one three before it, which all processes had to start."""


def is_main_process() -> bool:
    """Whether this is the process that writes files and prints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when all processes have reached this barrier."""
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost  # here because Orbax takes long

        multihost.sync_global_processes(
            f"encdec {next(_barriers)} {name}", timeout=_BARRIER_TIMEOUT
        )


def on_all_processes(action: Callable[[], Result]) -> Result:
    """Runs an action on all processes; if it raises InputError on one, it does so on all.

    Raises:
      InputError: from the action, or because the action raised it on another process.
    """
    error: InputError | None = None
    try:
        result = action()
    except InputError as raised:
        error = raised
    if jax.process_count() > 1:
        barrier("on_all_processes")
        failed = multihost_utils.process_allgather(np.array(error is not None))
        if error is None and failed.any():
            raise InputError(f"process {int(failed.argmax())} has stopped: its message says why")
    if error is not None:
        raise error
    return result


def any_process(*flags: bool) -> tuple[bool, ...]:
    """For each flag whether it is set on any process; all processes must ask at the same time."""
    if jax.process_count() == 1:
        return flags
    barrier("any_process")
    everyone = multihost_utils.process_allgather(np.array(flags))  # [processes, flags]
    return tuple(everyone.any(0).tolist())


def share_folder(folder: Path) -> bool:
    """Whether all processes see what the main process writes into this folder, which it makes."""
    if jax.process_count() == 1:
        return True
    barrier("share_folder")
    number = multihost_utils.broadcast_one_to_all(np.array(secrets.randbits(32), np.uint32))
    mark = folder / f"seen-by-all-{int(number)}.tmp"  # no earlier start has left it there
    if is_main_process():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
    barrier("share_folder")
    (is_missing,) = any_process(not mark.exists())
    if is_main_process():
        with suppress(OSError):
            mark.unlink(missing_ok=True)
    return not is_missing


def least(number: int) -> int:
    """The least of the numbers, 0 to 2^64, that the processes have; all ask at the same time."""
    if jax.process_count() == 1:
        return number
    barrier("least")
    halves = np.array([number >> 32, number & 0xFFFFFFFF], np.uint32)  # JAX has no 64 bits
    everyone = multihost_utils.process_allgather(halves).astype(np.uint64)  # [processes, 2]
    return int((everyone[:, 0] << np.uint64(32) | everyone[:, 1]).min())


class SharedPlan:
    """Wishes of single processes for what all do after the same later step.

    The plan of a step is a text that the coordinator keeps. Reading it takes a fraction of a
    millisecond and waits for no process.
    """

    def __init__(self) -> None:
        self._prefix = f"encdec/plan/{next(_plans)}"
        self._wished = ""

    def agreed(self, step: int, wish: str | None, weak: str) -> str | None:
        """What all processes do after this step, or None.

        Args:
          step: counted up by one from call to call, equal to the steps that were started.
          wish: what this process wants done soon, or None.
          weak: the wish that only the main process decides on, and that gives way to any other.
        """
        if jax.process_count() == 1:
            return wish
        if wish is not None and wish != self._wished and (wish != weak or is_main_process()):
            self._propose(step + _AHEAD, wish, replaces=wish != weak)
            self._wished = wish
        plan = self._read(step)
        if plan is not None and plan == self._wished:
            self._wished = ""
        return plan

    def _propose(self, step: int, wish: str, *, replaces: bool) -> None:
        if replaces or self._read(step) is None:
            key = f"{self._prefix}/{step}"
            _client().key_value_set(key, wish, allow_overwrite=True)

    def _read(self, step: int) -> str | None:
        client = _client()
        try:
            plan: str = client.key_value_try_get(f"{self._prefix}/{step}")
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                return None
            raise
        return plan


def main_process_first(action: Callable[[], Result]) -> Result:
    """As `on_all_processes`, but the others start when the main process has finished.

    For an action that writes a file if it does not exist: the others then only read it.
    """
    if jax.process_count() == 1:
        return action()
    # All processes call on_all_processes twice, so that their barriers match.
    if is_main_process():
        result = on_all_processes(action)
        on_all_processes(lambda: None)
        return result
    on_all_processes(lambda: None)
    return on_all_processes(action)


def check_same_step(step: int) -> None:
    """Checks that all processes resume from the same step.

    Raises:
      InputError: on all processes; names the step of each.
    """
    if jax.process_count() == 1:
        return
    barrier("check_same_step")
    everyone = multihost_utils.process_allgather(np.array(step)).ravel().tolist()
    if len(set(everyone)) > 1:
        listed = ", ".join(f"process {i} from step {each}" for i, each in enumerate(everyone))
        raise InputError(
            f"the processes would resume from different steps ({listed}): they see different run "
            "folders, so name one (--run) on a file system that all of them share"
        )


def check_equal(texts: Mapping[str, str]) -> None:
    """Checks that all processes were started with the same settings.

    Args:
      texts: what must be equal, by name; only digests are exchanged.

    Raises:
      InputError: on all processes; names the first text that differs, and a process.
    """
    if jax.process_count() == 1:
        return
    digests = [list(hashlib.sha256(text.encode()).digest()) for text in texts.values()]
    barrier("check_equal")
    gathered = multihost_utils.process_allgather(np.array(digests, np.uint8))  # [N, texts, 32]
    for i, name in enumerate(texts):
        differs = (gathered[:, i] != gathered[0, i]).any(-1)
        if differs.any():
            raise InputError(
                f"process {int(differs.argmax())} has another {name} than process 0: start all "
                "processes with the same command, version and corpus"
            )


def _client() -> Any:
    """JAX's client of the coordinator, which holds keys and values."""
    from orbax.checkpoint import multihost

    return multihost.get_jax_distributed_client()
