"""`encdec prepare`: downloads a corpus of TensorFlow Datasets once, for `encdec train --corpus`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse


@dataclass(frozen=True)
class _PrepareOptions:
    corpus: Annotated[
        Positional[str], arg(metavar="tfds:NAME/CONFIG", help="A translation corpus.")
    ]
    corpus_folder: Annotated[
        Path | None,
        arg(help="Folder of the corpora; by default that of TensorFlow Datasets."),
    ] = None


def run(arguments: list[str]) -> None:
    """Downloads a corpus, and prints its splits and its folder.

    Raises:
      InputError: see `encdec.data.tfds.prepare`.
    """
    description = "Downloads a corpus of TensorFlow Datasets for `encdec train --corpus`."
    options = parse(_PrepareOptions, arguments, "encdec prepare", description)
    from encdec.data import tfds

    folder = None if options.corpus_folder is None else str(options.corpus_folder.absolute())
    info = tfds.prepare(options.corpus, folder)
    for name, split in info.splits.items():
        print(f"{name}: {split.num_examples} rows")
    print(f"{options.corpus} is in {info.data_dir}")
    where = "" if folder is None else f" --corpus-folder {folder}"
    print(f"try: encdec train --corpus {options.corpus}{where}")
