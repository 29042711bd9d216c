"""Figures of curves, without pyplot and its global state."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from encdec.evaluation.by_length import LengthBucket
from encdec.plots.fonts import label
from encdec.types import InputError

_DPI = 150
_FONT_SIZE = 9.0  # points
_WIDTH, _HEIGHT = 5.6, 3.0  # inches, without the legend
_LEGEND_LINE = 0.19  # inches
_STYLES = ("-", "--", "-.", ":")
_MARKERS = "osD^vP*X"
_MAX_MARKERS = 12
"""Most markers on a line, about; more would overlap."""
_COLOURS = ("#000000", "#1f4e9c", "#b03a2e", "#2e8b57", "#8e6bbf", "#b8860b")


def length_figure(series: Mapping[str, Sequence[LengthBucket]]) -> Figure:
    """Draws BLEU over source length.

    Args:
      series: for each system, by name, the result of `metrics_by_length`, with lengths in words. A
        range of lengths is a point at its mean length.

    Raises:
      InputError: there is no system, or one has no ranges or no BLEU.
    """
    if not series or not all(series.values()):
        raise InputError("there are no metrics by length to draw")
    lines = {}
    for name, buckets in series.items():
        if not all("bleu" in bucket.metrics.values for bucket in buckets):
            raise InputError(f"{name} has no BLEU by length: compute it with metrics_by_length")
        bleu = [bucket.metrics["bleu"] for bucket in buckets]
        lines[name] = ([bucket.mean_length for bucket in buckets], bleu)
    return line_figure(lines, "source length, words", "BLEU")


def line_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    *,
    logarithmic: bool = False,
) -> Figure:
    """Draws lines that differ in colour, marker and style, so also in greyscale.

    Args:
      series: for each line, by name, its values of x and of y.
      x_label, y_label: labels of the axes.
      logarithmic: whether both axes are logarithmic; if not, both begin at 0.
    """
    figure = Figure(
        figsize=(_WIDTH, _HEIGHT + _LEGEND_LINE * len(series)), dpi=_DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (x, y) in enumerate(series.values()):
        axes.plot(
            x,
            y,
            linestyle=_STYLES[i % len(_STYLES)],
            marker=_MARKERS[i % len(_MARKERS)],
            markevery=max(1, len(x) // _MAX_MARKERS),
            color=_COLOURS[i % len(_COLOURS)],
            markersize=5,
            clip_on=False,
            linewidth=1.4,
        )
    axes.set_xlabel(x_label, fontsize=_FONT_SIZE)
    axes.set_ylabel(y_label, fontsize=_FONT_SIZE)
    axes.tick_params(labelsize=_FONT_SIZE)
    if logarithmic:
        _set_logarithmic(axes)
    else:
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _add_legend(figure, list(series))
    return figure


def _set_logarithmic(axes: Axes) -> None:
    """Makes both axes logarithmic, with plain numbers at powers of two."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _add_legend(figure: Figure, names: Sequence[str]) -> None:
    """Writes one name in each line above the axes; widens the figure to fit the longest."""
    lines = figure.axes[0].get_lines()
    legend = figure.legend(
        lines,
        ["?"] * len(lines),  # replaced below: matplotlib ignores names that begin with _
        loc="outside upper left",
        handlelength=4,
        frameon=False,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        drawable, font = label(name)
        text.set(text=drawable, font=font, fontsize=_FONT_SIZE, parse_math=False)
    width = legend.get_window_extent().width / figure.dpi + 0.2
    figure.set_figwidth(max(_WIDTH, width))
