"""`encdec plot`: draws learning curves, or BLEU by source length, of one or several runs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from encdec.cli.output import check_picture
from encdec.cli.parsing import parse
from encdec.types import InputError


@dataclass(frozen=True)
class _PlotOptions:
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="Run folders.")]
    out: Annotated[Path, arg(help="Figure to write: .png or .svg.")]
    metric: Annotated[
        str,
        arg(
            help="Metric to draw over the steps: loss, bleu, exact_match, or any other number in "
            "the run's metrics.jsonl, such as tokens_per_second."
        ),
    ] = "loss"
    by_length: Annotated[
        bool,
        arg(help="Draw BLEU by source length, as measured by `encdec evaluate --by-length`."),
    ] = False


def run(arguments: list[str]) -> None:
    """Draws the curves of one or several runs.

    Raises:
      InputError: no run is named, a run lacks the metric, or the figure cannot be written.
    """
    options = parse(_PlotOptions, arguments, "encdec plot", "Draws curves of runs.")
    if not options.runs:
        raise InputError("no run is named: give one or more run folders")
    check_picture(options.out)

    from encdec.plots.attention import save_figure
    from encdec.plots.runs import learning_picture, length_picture
    from encdec.runs import run as runs
    from encdec.runs.metrics_log import describe_bad_lines

    opened = [runs.load(path) for path in options.runs]
    notes = [describe_bad_lines(one.path / "metrics.jsonl") for one in opened]
    try:
        if options.by_length:
            figure = length_picture(opened)
        else:
            figure = learning_picture(opened, options.metric)
    except InputError as error:  # maybe for want of the rows in those lines
        raise InputError("; ".join([str(error), *filter(None, notes)])) from None
    save_figure(figure, options.out)
    for note in filter(None, notes):
        print(f"encdec: {note}", file=sys.stderr)
    print(options.out)
