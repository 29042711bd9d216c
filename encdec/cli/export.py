"""`encdec export`: writes a run as files that can be used without this package."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse
from encdec.types import InputError

_DEFAULT_SOURCE_LENGTH = 64


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
    from encdec.runs import run as runs

    longest = runs.load(options.run).config.data.max_source_length + 1
    length = options.source_length
    if length is not None and options.to != "stablehlo":
        raise InputError(f"source_length is for stablehlo, not for {options.to}: leave it out")
    if length is None:
        length = min(_DEFAULT_SOURCE_LENGTH, longest)
    if not 2 <= length <= longest:
        raise InputError(
            f"source_length = {length} cannot be used: it must be from 2 to {longest}, the longest "
            "source that the run was trained on with its end token"
        )
    notes: list[str] = []
    files = export_run(options.run, options.out, options.to, source_length=length, say=notes.append)
    for note in notes:
        print(f"encdec: {note}", file=sys.stderr)
    for file in files:
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
