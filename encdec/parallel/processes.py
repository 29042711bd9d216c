"""Several processes that train one run: how they start, agree, wait and notice a death.

On one process all of it does nothing.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from encdec.config import TrainingDeviceConfig
from encdec.types import InputError

Result = TypeVar("Result")

_SILENT = 30
"""Seconds without a sign of life after which a process counts as dead, and all end."""
_barriers = itertools.count()
"""Barriers met so far: the service that keeps them takes each name once."""
_PATIENT = 24 * 3600
"""Seconds that one may wait for another which is alive: making tokens can take hours."""


def start(config: TrainingDeviceConfig) -> None:
    """Joins the other processes: those of the options, or those that the environment tells of.

    Raises:
      InputError: they cannot be reached, or devices were used before.
    """
    if jax.distributed.is_initialized():
        return
    given = config.coordinator is not None
    if not given and not _environment_tells():
        return
    address = config.coordinator
    loopback = address is not None and address.rsplit(":", 1)[0] in ("127.0.0.1", "localhost")
    try:
        jax.distributed.initialize(
            coordinator_address=address,
            num_processes=config.processes,
            process_id=config.process,
            # Without this the first process would listen to the whole world.
            coordinator_bind_address=address if loopback and config.process == 0 else None,
            heartbeat_timeout_seconds=_SILENT,
        )
    except (RuntimeError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        who = f"coordinator {address}" if given else "the processes that the environment names"
        raise InputError(
            f"{who} cannot be joined ({first_line}): all processes must be started within five "
            "minutes, with the same coordinator and number, each with its own place"
        ) from error


def _environment_tells() -> bool:
    """Whether a launcher started several processes: Slurm, Open MPI, TPU pods, GKE."""
    launched = {
        "SLURM_PROCID": "SLURM_STEP_NUM_TASKS",
        "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",
    }
    for place, count in launched.items():
        if place in os.environ and int(os.environ.get(count, "1")) > 1:
            return True
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def writes() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Returns when all processes have come here."""
    if jax.process_count() > 1:
        multihost.sync_global_processes(f"encdec {next(_barriers)} {name}", timeout=_PATIENT)


def together(action: Callable[[], Result]) -> Result:
    """What the action gives on this process; if it refuses on any, all end.

    Raises:
      InputError: the action's own, or that another process was refused something.
    """
    refused: InputError | None = None
    try:
        result = action()
    except InputError as error:
        refused = error
    if jax.process_count() > 1:
        wait("together")
        refusals = multihost_utils.process_allgather(np.array(refused is not None))
        if refused is None and refusals.any():
            raise InputError(
                f"process {int(refusals.argmax())} has stopped: its own message says why"
            )
    if refused is not None:
        raise refused
    return result


def first_alone(action: Callable[[], Result]) -> Result:
    """As `together`, but the first process acts before all others: they find what it made."""
    if jax.process_count() == 1:
        return action()
    if writes():
        result = together(action)
        together(lambda: None)
        return result
    together(lambda: None)
    return together(action)


def agree(facts: Mapping[str, str]) -> None:
    """Ends all processes unless every one has the same facts.

    Args:
      facts: texts by name; only digests are exchanged.

    Raises:
      InputError: names the first fact that differs and a process that has another one.
    """
    if jax.process_count() == 1:
        return
    digests = [list(hashlib.sha256(text.encode()).digest()) for text in facts.values()]
    wait("agree")
    everyone = multihost_utils.process_allgather(np.array(digests, np.uint8))
    for place, name in enumerate(facts):
        differs = (everyone[:, place] != everyone[0, place]).any(-1)
        if differs.any():
            raise InputError(
                f"process {int(differs.argmax())} has another {name} than process 0: start all "
                "processes with the same command, version and corpus"
            )
