"""`encdec import`: makes a run of a model that was trained elsewhere."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse


@dataclass(frozen=True)
class _ImportOptions:
    model: Annotated[
        Positional[str],
        arg(
            metavar="FOLDER",
            help="Folder of a model as the hub library saves it, or its name on the hub, such as "
            "Helsinki-NLP/opus-mt-en-de.",
        ),
    ]
    run: Annotated[Path, arg(help="Run folder to make; it must not exist.")]
    source_language: Annotated[
        str | None,
        arg(help="Language of the source, by the model's code; by default as the files say."),
    ] = None
    target_language: Annotated[
        str | None, arg(help="Language to translate to; by default as the files say.")
    ] = None
    normalize_punctuation: Annotated[
        bool,
        arg(
            help="Normalize punctuation by Moses' rules before the tokenizer, as in the training "
            "of Marian models; the hub library does not."
        ),
    ] = False


def run(arguments: list[str]) -> None:
    """Imports a model and says what it is.

    Raises:
      InputError: the model cannot be read or is not supported, or the run folder exists.
    """
    options = parse(
        _ImportOptions, arguments, "encdec import", "Makes a run of a model trained elsewhere."
    )
    from encdec.interop.import_model import import_model
    from encdec.runs.parameters import parameter_count

    run = import_model(
        options.model,
        options.run,
        source_language=options.source_language,
        target_language=options.target_language,
        normalize_punctuation=options.normalize_punctuation,
        say=lambda line: print(f"encdec: {line}", file=sys.stderr),
    )
    print(f"run: {run.path}  {parameter_count(run):,} parameters")
    print(f"try: echo '...' | encdec translate {run.path}")
