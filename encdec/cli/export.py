"""`encdec export`: weights and a greedy search that need this package no more."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse
from encdec.runs import run as runs
from encdec.types import InputError


@dataclass(frozen=True)
class _ExportOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    out: Annotated[Path, arg(help="Folder to make.")]
    source_length: Annotated[
        int | None,
        arg(
            help="Source tokens, EOS among them, that the program takes; left out, 64 or as many "
            "as the run was trained for, whichever is fewer."
        ),
    ] = None


def run(arguments: list[str]) -> None:
    """Writes weights and a greedy search that need this package no more.

    Raises:
      InputError: no run, no checkpoint, or a folder that is there already.
    """
    from encdec.interop.export import export_run

    options = parse(_ExportOptions, arguments, "encdec export", "Weights and a program for others.")
    most = runs.load(options.run).config.data.max_source_length + 1
    length = min(64, most) if options.source_length is None else options.source_length
    if not 2 <= length <= most:
        raise InputError(
            f"source_length = {length} cannot be used: from 2 to {most}, the longest source that "
            "the run was trained for and its EOS"
        )
    for file in export_run(options.run, options.out, length):
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
