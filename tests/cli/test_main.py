"""The program: help, unknown commands, and a reader that closes the pipe."""

import subprocess
import sys

from encdec.cli.main import COMMANDS
from tests.commands import refused


def test_help(encdec) -> None:
    for command in COMMANDS:
        assert f"\n  {command} " in encdec("--help").out
    assert encdec().out == encdec("-h").out
    found = encdec("train", "--model", "seq2seq", "--help")
    assert found.code == 0
    for part in ("--cell", "{simple,gru,gru-reset-after,lstm}", "--max-steps", "--reverse-source"):
        assert part in found.out
    refused(encdec("trian"), "unknown command 'trian'", "did you mean train")


def test_a_reader_that_goes_away_is_no_error(trained) -> None:
    run, _ = trained
    done = subprocess.run(
        ["bash", "-c", f"yes eins | head -9000 | {sys.executable} -m encdec.cli translate {run} "
         "--beam 1 | head -1; echo ${PIPESTATUS[2]}"],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["one", "0"]
    assert done.stderr == ""
