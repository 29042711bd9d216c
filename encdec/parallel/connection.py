"""How the processes that train one run find each other, and notice a dead one."""

import atexit
import os
import threading
from collections.abc import Callable

import jax

from encdec.config import TrainingDeviceConfig
from encdec.types import InputError

_START_TIMEOUT = 300
"""Seconds to wait until all processes are connected."""
_SILENT_START = 10
"""Seconds of them after which a line says what is waited for."""
_HEARTBEAT_TIMEOUT = 30
"""Seconds without a heartbeat after which a process counts as dead and all others end."""


def connect(config: TrainingDeviceConfig, say: Callable[[str], None]) -> None:
    """Connects to the other processes that the options or a launcher's environment name.

    Args:
      config: names the coordinator, or leaves it to the launcher.
      say: is called with a line when the others are slow to appear.

    Raises:
      InputError: the coordinator cannot be reached, another process does not appear within five
        minutes, or JAX has already used its devices.
    """
    if jax.distributed.is_initialized():
        return
    given = config.coordinator is not None
    if not given and not _launched_in_parallel():
        return
    address = config.coordinator
    who = f"coordinator {address}" if given else "the processes that the environment names"
    connecting = _Connecting(config)
    connecting.start()
    connecting.join(_SILENT_START)
    if connecting.is_alive():
        say(f"waiting for {who}, until all processes have started")
        connecting.join(_START_TIMEOUT - _SILENT_START)
    error = connecting.error
    if not connecting.is_alive() and error is None:
        return
    if connecting.is_alive():
        reason = "not all processes have appeared"
        atexit.register(_mute)
    else:
        reason = str(error).splitlines()[0]
    raise InputError(
        f"{who} cannot be joined ({reason}): start all processes within five minutes, "
        "with the same --coordinator and --processes, and each with a different --process"
    ) from error


class _Connecting(threading.Thread):
    """Connects to the coordinator. Where JAX gives up it ends the process with a trace of its C++
    code, and no signal is handled while it waits, so it waits in a thread that can be left."""

    def __init__(self, config: TrainingDeviceConfig) -> None:
        super().__init__(daemon=True)
        self.config = config
        self.error: Exception | None = None

    def run(self) -> None:
        address = self.config.coordinator
        loopback = address is not None and address.rsplit(":", 1)[0] in ("127.0.0.1", "localhost")
        try:
            jax.distributed.initialize(
                coordinator_address=address,
                num_processes=self.config.processes,
                process_id=self.config.process,
                # Without this the coordinator would listen on all network interfaces.
                coordinator_bind_address=(
                    address if loopback and self.config.process == 0 else None
                ),
                initialization_timeout=2 * _START_TIMEOUT,
                heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
            )
        except Exception as error:
            self.error = error


def _mute() -> None:
    """Closes stderr to the coordinator's C++ code, which reports at exit whom it has missed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _launched_in_parallel() -> bool:
    """Whether Slurm, Open MPI, a TPU pod or GKE started several processes."""
    launchers = {
        "SLURM_PROCID": "SLURM_STEP_NUM_TASKS",
        "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",
    }
    for rank, size in launchers.items():
        if rank in os.environ and int(os.environ.get(size, "1")) > 1:
            return True
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
