"""The program: help, and unknown commands."""

import io
import sys
from pathlib import Path

import pytest

from encdec.cli.main import COMMANDS, main
from tests.commands import refused
from tests.small_run import small_run


def test_help(encdec) -> None:
    for command in COMMANDS:
        assert f"\n  {command} " in encdec("--help").out
    assert encdec().out == encdec("-h").out
    found = encdec("train", "--model", "seq2seq", "--help")
    assert found.code == 0
    for part in ("--cell", "{simple,gru,gru-reset-after,lstm}", "--max-steps", "--reverse-source"):
        assert part in found.out
    refused(encdec("trian"), "unknown command 'trian'", "did you mean train")


def test_stdout_that_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path / "Läufe ▁").path
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    main(["info", str(run)])
    assert "Läufe \\u2581".encode("latin-1") in written.getvalue()


def test_a_run_folder_has_a_name_in_utf8(encdec, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run").path
    other = run.rename(tmp_path / "r\udcff")
    for command in (["info"], ["translate"], ["export", "--to", "safetensors", "--out", "x"]):
        refused(encdec(*command, other), "not UTF-8")
    new = tmp_path / "n\udcff"
    refused(encdec("train", "dates", "--run", new, "--max-steps", 1), "not UTF-8")
    assert not new.exists()
