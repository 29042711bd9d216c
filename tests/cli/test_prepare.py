"""The output of `encdec prepare`; the download is tested with encdec.data.tfds."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from encdec.cli import main as cli
from encdec.data import tfds


def test_it_says_what_there_is_and_what_to_do_next(tmp_path: Path, monkeypatch, capsys) -> None:
    def prepared(corpus: str, folder: str | None) -> SimpleNamespace:
        splits = {"train": SimpleNamespace(num_examples=7)}
        return SimpleNamespace(splits=splits, data_dir=f"{folder}/{corpus}")

    monkeypatch.setattr(tfds, "prepare", prepared)
    monkeypatch.chdir(tmp_path)
    cli.main(["prepare", "tfds:talks/de-en", "--corpus-folder", "corpora"])
    folder = tmp_path / "corpora"
    assert capsys.readouterr().out.splitlines() == [
        "train: 7 rows",
        f"tfds:talks/de-en is in {folder}/tfds:talks/de-en",
        f"try: encdec train --corpus tfds:talks/de-en --corpus-folder {folder}",
    ]
    cli.main(["prepare", "tfds:talks/de-en"])
    assert capsys.readouterr().out.endswith("try: encdec train --corpus tfds:talks/de-en\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "tfds:NAME/CONFIG"),
        (["wmt16"], "corpus = 'wmt16' cannot be used: say tfds:NAME/CONFIG"),
        (["tfds:wmt16_translate"], "several configurations"),
        (["tfds:wmt16_translate/de-en", "--folder", "x"], "did you mean --corpus-folder?"),
    ],
)
def test_it_refuses(arguments: list[str], part: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", *arguments])
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out, len(printed.err.splitlines())) == (2, "", 1)
    assert part in printed.err
