"""`encdec plot`: learning curves, or metrics by source length, of one or several runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse
from encdec.runs import run as runs
from encdec.types import InputError


@dataclass(frozen=True)
class _PlotOptions:
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="Run folders.")]
    out: Annotated[Path, arg(help="Picture to write: .png or .svg.")]
    score: Annotated[
        str, arg(help="What is drawn over the steps: loss (nats a token), bleu, exact_match ...")
    ] = "loss"
    by_length: Annotated[
        bool, arg(help="Instead: BLEU by source length, as `evaluate --by-length` noted it.")
    ] = False


def run(arguments: list[str]) -> None:
    """Draws the curves of one or several runs.

    Raises:
      InputError: no run, nothing measured to draw, or a picture that cannot be written.
    """
    from encdec.plots import runs as pictures
    from encdec.plots.attention import save_figure

    options = parse(_PlotOptions, arguments, "encdec plot", "Draws learning curves.")
    if not options.runs:
        raise InputError("no run is named: give one or several run folders")
    opened = [runs.load(path) for path in options.runs]
    if options.by_length:
        figure = pictures.length_picture(opened)
    else:
        figure = pictures.learning_picture(opened, options.score)
    save_figure(figure, options.out)
    print(options.out)
