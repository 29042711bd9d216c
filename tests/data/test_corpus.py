"""Which files can be trained on."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

import encdec
from encdec.config import DataConfig, RunConfig
from encdec.data.corpus import read_corpus
from encdec.types import InputError


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path, place: int) -> None:
    """Held-out pairs take a second reading, and another start a third."""
    pipe, text = tmp_path / "pipe", tmp_path / "text"
    os.mkfifo(pipe)
    text.write_text("a\n")
    source, target, tsv = [(str(pipe if i == place else text),) for i in range(3)]
    data = DataConfig(tsv=tsv) if place == 2 else DataConfig(source=source, target=target)
    with pytest.raises(InputError, match=r"pipe is a pipe or a device, .* write it to a file"):
        read_corpus(RunConfig(data=data), lambda line: None)


@pytest.mark.parametrize("side", ["train", "valid", "held_out"])
@pytest.mark.parametrize("pair", [("x\ud800", "y"), ("x", "y\udcff")])
def test_text_that_is_not_utf8_is_refused_at_once(
    side: str, pair: tuple[str, str], tmp_path: Path
) -> None:
    pairs = [(f"a{i}", f"b{i}") for i in range(9)]
    corpus = replace(encdec.Corpus(pairs, valid=pairs), **{side: [*pairs, pair]})
    config = encdec.preset("tiny", "seq2seq")
    with pytest.raises(InputError, match=r"pair 9 .*surrogate"):
        encdec.train(config, corpus, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_pairs_have_text(tmp_path: Path) -> None:
    for name, text in {"train": "a\tb\n" * 3, "valid": "\n \t \nx\t\n"}.items():
        (tmp_path / name).write_text(text)
    data = DataConfig(tsv=(str(tmp_path / "train"),), valid_tsv=(str(tmp_path / "valid"),))
    with pytest.raises(InputError, match="no pair to validate on has text"):
        read_corpus(RunConfig(data=data), lambda line: None)
