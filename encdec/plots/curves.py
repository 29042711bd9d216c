"""Curves, as matplotlib figures; pyplot and its global state stay out."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from encdec.evaluation.by_length import LengthBucket
from encdec.plots.fonts import label
from encdec.types import InputError

_DPI = 150
_SIZE = 9.0  # points
_WIDTH, _HEIGHT = 5.6, 3.0  # inches, without the names of the systems
_LINE = 0.19  # inches, room for a name
_STYLES = ("-", "--", "-.", ":")
_MARKERS = "osD^vP*X"
_MOST_MARKERS = 12
"""About as many a line: more run into each other."""
_COLOURS = ("#000000", "#1f4e9c", "#b03a2e", "#2e8b57", "#8e6bbf", "#b8860b")


def length_figure(series: Mapping[str, Sequence[LengthBucket]]) -> Figure:
    """BLEU over source length, a line a system, a point a class at its mean length.

    Args:
      series: for each system, by name, what `by_length` found, BLEU among it, of lengths in words.

    Raises:
      InputError: a system has no classes or no BLEU, or there is none.
    """
    if not series or not all(series.values()):
        raise InputError("there are no scores by length to draw")
    lines = {}
    for name, classes in series.items():
        bleu = [one.scores.bleu for one in classes if one.scores.bleu is not None]
        if len(bleu) < len(classes):
            raise InputError(f"{name} has no BLEU by length: let by_length compute it")
        lines[name] = ([one.mean_length for one in classes], bleu)
    return line_figure(lines, "source length, words", "BLEU")


def line_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    *,
    logarithmic: bool = False,
) -> Figure:
    """Lines over one axis. Markers and styles differ, so they can be told apart in greyscale.

    Args:
      series: for each line, by name, its x and y.
      x_label, y_label: what these are.
      logarithmic: both axes double at even distances, and need not begin at 0.
    """
    figure = Figure(figsize=(_WIDTH, _HEIGHT + _LINE * len(series)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (x, y) in enumerate(series.values()):
        axes.plot(
            x,
            y,
            linestyle=_STYLES[i % len(_STYLES)],
            marker=_MARKERS[i % len(_MARKERS)],
            markevery=max(1, len(x) // _MOST_MARKERS),
            color=_COLOURS[i % len(_COLOURS)],
            markersize=5,
            clip_on=False,
            linewidth=1.4,
        )
    axes.set_xlabel(x_label, fontsize=_SIZE)
    axes.set_ylabel(y_label, fontsize=_SIZE)
    axes.tick_params(labelsize=_SIZE)
    if logarithmic:
        _double(axes)
    else:
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _name(figure, list(series))
    return figure


def _double(axes: Axes) -> None:
    """Logarithmic axes with plain numbers at powers of two."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _name(figure: Figure, names: Sequence[str]) -> None:
    """The names above the axes, one a line; the figure grows as wide as the longest needs."""
    lines = figure.axes[0].get_lines()
    legend = figure.legend(
        lines,
        ["?"] * len(lines),  # matplotlib passes over names that begin with an underscore
        loc="outside upper left",
        handlelength=4,
        frameon=False,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        shown, font = label(name)
        text.set(text=shown, font=font, fontsize=_SIZE, parse_math=False)
    width = legend.get_window_extent().width / figure.dpi + 0.2
    figure.set_figwidth(max(_WIDTH, width))
