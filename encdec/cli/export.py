"""`encdec export`: writes a run as files that can be used without this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse
from encdec.types import InputError

_DEFAULT_SOURCE_LENGTH = 64


@dataclass(frozen=True)
class _ExportOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    out: Annotated[Path, arg(help="Folder to write; it must not exist.")]
    source_length: Annotated[
        int | None,
        arg(
            help="Length of the program's input in source tokens, with the end token; by default "
            "64, or the longest source of the run with its end token if that is less."
        ),
    ] = None


def run(arguments: list[str]) -> None:
    """Writes the weights, and greedy search as a StableHLO program.

    Raises:
      InputError: the run cannot be opened or has no checkpoint, the length cannot be used, or the
        folder to write exists.
    """
    description = "Writes weights and a program for greedy search."
    options = parse(_ExportOptions, arguments, "encdec export", description)
    from encdec.interop.export import export_run
    from encdec.runs import run as runs

    longest = runs.load(options.run).config.data.max_source_length + 1
    length = options.source_length
    if length is None:
        length = min(_DEFAULT_SOURCE_LENGTH, longest)
    if not 2 <= length <= longest:
        raise InputError(
            f"source_length = {length} cannot be used: it must be from 2 to {longest}, the longest "
            "source that the run was trained on with its end token"
        )
    for file in export_run(options.run, options.out, length):
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
