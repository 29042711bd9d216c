"""`encdec serve` from the outside."""

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from encdec.cli import serve
from tests.commands import refused
from tests.small_run import small_run


def test_it_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run").path
    command = [
        sys.executable,
        "-m",
        "encdec.cli",
        "serve",
        str(run),
        "--port",
        "0",
        "--most-beam",
        "2",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout
        assert process.stderr
        try:
            address = process.stdout.readline().split(" at ")[1].split()[0]
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{address}/about") as answer:
                assert json.load(answer)["most_beam"] == 2
            assert "beam = 2, because requests have at most 2" in process.stderr.readline()
            process.terminate()
            assert process.wait(30) == -signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_it_listens_on_ipv6() -> None:
    with serve._listen("::1", 0) as listener:
        assert listener.getsockname()[0] == "::1"


def test_what_cannot_be_served_is_refused(tmp_path: Path, encdec, monkeypatch) -> None:
    run = small_run(tmp_path / "run").path
    refused(encdec("serve", tmp_path / "none"), "none")
    refused(encdec("serve", run, "--port", "65536"), "port = 65536", "0 to 65535")
    refused(encdec("serve", run, "--most-waiting", "0"), "most_waiting = 0", "at least 1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = encdec("serve", run, "--port", port)
        refused(found, f"127.0.0.1:{port}", "in use", "--port")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused(encdec("serve", run), "uvicorn", 'pip install "encdec[serve]"')


@pytest.mark.parametrize(("error", "shown"), [(asyncio.CancelledError(), False), (OSError(), True)])
def test_a_request_that_the_end_cuts_off_is_no_news(error: BaseException, shown: bool) -> None:
    of_error = (type(error), error, None)
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "Exception", (), of_error)
    assert serve._is_news(record) == shown
