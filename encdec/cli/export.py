"""`encdec export`: writes a run as files that can be used without this package."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse


@dataclass(frozen=True)
class _ExportOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    to: Annotated[
        Literal["transformers", "ctranslate2", "stablehlo", "safetensors"],
        arg(
            help="transformers: a folder of the hub library; ctranslate2: one of CTranslate2, a "
            "fast engine; both for Transformers only. stablehlo: greedy search as a program that "
            "needs JAX only. safetensors: the parameters by their names."
        ),
    ]
    out: Annotated[Path, arg(help="Folder to write; it must not exist.")]
    source_length: Annotated[
        int | None,
        arg(
            help="Of stablehlo: the length of the program's input in source tokens, with the end "
            "token; by default 64, or the longest source of the run with its end token if that is "
            "less."
        ),
    ] = None


def run(arguments: list[str]) -> None:
    """Writes a run in another format.

    Raises:
      InputError: the run cannot be opened or has no checkpoint, the format cannot hold it, the
        length cannot be used, or the folder to write exists.
    """
    description = "Writes a run in a format that others read."
    options = parse(_ExportOptions, arguments, "encdec export", description)
    from encdec.interop.export import export_run

    notes: list[str] = []
    files = export_run(
        options.run,
        options.out,
        options.to,
        source_length=options.source_length,
        say=notes.append,
    )
    for note in notes:
        print(f"encdec: {note}", file=sys.stderr)
    for file in files:
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
