"""Numbers that no command can use: each whole-number option of each command."""

import typing
from pathlib import Path
from typing import Any

import pytest

import encdec as library
from encdec.config import Seq2SeqConfig
from tests.cli.options import options_of_all_commands
from tests.commands import refused
from tests.small_run import small_run

WORDS = {
    "train": ["--tsv", "pairs", "--run", "x"],
    "translate": ["run", "--input", "two"],
    "evaluate": ["run", "--tsv", "pairs", "--by-length"],
    "score": ["run", "--tsv", "pairs"],
    "compare": ["run", "run", "--tsv", "pairs"],
    "attend": ["run", "a", "--out", "x.png"],
    "export": ["run", "--to", "stablehlo", "--out", "x"],
    "serve": ["run"],
    "shortlist": ["run", "--tsv", "pairs", "--out", "x"],
}
"""What each command is given besides the option."""
ACCEPTED = {"seed": [10**12], "top-k": [10**12, 10**30], "tsv-columns": [10**12, 10**30]}
"""Seeds have 64 bits; k may be more than all tokens; a file says how many columns it has."""


class _AcceptedError(Exception):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and files of text."""
    made = tmp_path_factory.mktemp("numbers")
    small_run(made / "run", Seq2SeqConfig(cell="simple", embed=6, hidden=8))
    (made / "two").write_text("a\nb\n")
    (made / "pairs").write_text("a\tb\n")
    return made


@pytest.mark.parametrize("number", [10**12, 10**30], ids="{:.0e}".format)
def test_huge_numbers_are_refused(number: int, folder: Path, encdec, monkeypatch) -> None:
    def accept(*_: Any, **__: Any) -> None:
        raise _AcceptedError

    monkeypatch.chdir(folder)
    monkeypatch.setattr(library, "train", accept)
    monkeypatch.setattr("encdec.inference.batch_search.find", accept)
    monkeypatch.setattr("encdec.data.lexicon.learn_lexicon", accept)
    before = sorted(folder.rglob("*"))
    found: list[str] = []
    for command, option, kind in list(options_of_all_commands(monkeypatch)):
        if not {int, tuple[int, int], tuple[int, ...]} & {kind, *typing.get_args(kind)}:
            continue
        found.append(option)
        words = [number] * 2 if "tuple" in str(kind) else [number]
        line = [command, *WORDS[command], f"--{option}", *words]
        if number in ACCEPTED.get(option, []):
            with pytest.raises(_AcceptedError):
                encdec(*line)
        else:
            refused(encdec(*line), option.replace("-", "_"))
    assert len(found) > 50
    assert sorted(folder.rglob("*")) == before
