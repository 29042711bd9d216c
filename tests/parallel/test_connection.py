"""Processes find each other as a launcher or the options say, or end with one line."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from encdec.config import TrainingDeviceConfig
from encdec.parallel import connection
from encdec.types import InputError


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, False),  # inside salloc, not started by srun
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ],
)
def test_launchers_are_recognized(monkeypatch: pytest.MonkeyPatch, environment, several) -> None:
    joined: list[object] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **how: joined.append(how))
    for name in ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    connection.connect(TrainingDeviceConfig(), print)
    assert bool(joined) == several


def test_a_coordinator_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**how: object) -> None:
        raise RuntimeError("DEADLINE_EXCEEDED\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    config = TrainingDeviceConfig(coordinator="127.0.0.1:1", processes=2, process=1)
    with pytest.raises(InputError, match=r"127.0.0.1:1 cannot be joined \(DEADLINE_EXCEEDED\)"):
        connection.connect(config, print)


ALONE = """
import sys
from encdec.cli.main import main
from encdec.parallel import connection
connection._START_TIMEOUT, connection._SILENT_START = 1, 0.1
main(["train", "dates", "--run", sys.argv[1], *sys.argv[2:]])
"""
"""Trains, but waits only a second for the other processes."""


@pytest.mark.parametrize("process", ["0", "1"])
def test_a_process_whose_others_never_appear_ends_with_one_line(
    tmp_path: Path, process: str
) -> None:
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [str(run), "--coordinator", address, "--processes", "2", "--process", process]
    ended = subprocess.run(
        [sys.executable, "-c", ALONE, *words], capture_output=True, text=True, timeout=200
    )
    waiting, error = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert waiting == f"waiting for coordinator {address}, until all processes have started"
    assert f"{address} cannot be joined (not all processes have appeared): start all" in error
    assert not run.exists()
