"""One process trains a run at a time; the lock of a dead one does not stop the next."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from encdec.runs.lock import locked
from encdec.types import InputError

HOLD = """
import sys
import time
from pathlib import Path
from encdec.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(run: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = holder(run)
    who = f"{run} is being written by process {process.pid} on {socket.gethostname()}"
    with pytest.raises(InputError, match=who), locked(run):
        pass
    process.communicate()
    assert not run.exists()  # an empty folder that the lock made goes with it
    with locked(run):
        (run / "config.json").touch()
        assert json.loads((run / "lock").read_text())["process"] == os.getpid()
    assert [file.name for file in run.iterdir()] == ["config.json"]


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.communicate()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()


def test_the_lock_of_another_host_is_not_before_ten_minutes(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text('{"host": "node7", "process": 12}\n')
    with pytest.raises(InputError, match=r"process 12 on node7: .* or delete .*lock"):
        locked(tmp_path).__enter__()
    assert lock.read_text() == '{"host": "node7", "process": 12}\n'
    long_ago = time.time() - 601
    os.utime(lock, (long_ago, long_ago))
    with locked(tmp_path):
        assert json.loads(lock.read_text())["process"] == os.getpid()


def test_the_holder_touches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdec.runs.lock._TOUCH_SECONDS", 0.01)
    with locked(tmp_path):
        os.utime(tmp_path / "lock", (0, 0))
        deadline = time.monotonic() + 10
        while not (tmp_path / "lock").stat().st_mtime and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "lock").stat().st_mtime > time.time() - 10


def test_a_file_of_the_user_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("my key")
    with pytest.raises(InputError, match="is not the lock of a run"):
        locked(tmp_path).__enter__()
    assert (tmp_path / "lock").read_text() == "my key"
