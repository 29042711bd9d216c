"""The program: help, and unknown commands."""

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
