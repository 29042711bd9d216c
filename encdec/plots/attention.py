"""Figures of attention maps, and saving figures; without pyplot and its global state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage

from encdec.files import atomic_write
from encdec.plots.fonts import label
from encdec.types import InputError

# Lengths in inches.
_CELL = 0.2
"""Width and height of a cell, enough for one line of a label."""
_GAP = 0.3
"""Space between two panels, and above each for its title."""
_PAD = 0.12
"""Space around the figure, and between labels and panels."""
_SCALE_WIDTH = 0.6
"""Width of the colour scale with its labels."""
_FONT_SIZE = 8.0  # points
_DPI = 150
_MAX_PIXELS = 12_000
"""Longest side of the figure; a larger one gets a lower resolution."""

Labels = list[tuple[str, FontProperties]]
"""Texts, each with a font that has its characters."""


def attention_figure(
    attention: np.ndarray,
    src_tokens: Sequence[str],
    tgt_tokens: Sequence[str],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Draws attention maps: source tokens from left to right, target tokens from top to bottom.

    The darker a cell, the nearer the attention is to 1. The figure has shades of grey only.

    Args:
      attention: float [M, T, S], from 0 to 1; each map is a panel.
      src_tokens, tgt_tokens: S and T labels, in any script.
      titles: M titles of panels.
      columns: panels in a row; by default the grid is about square.
    """
    maps, rows, cols = attention.shape
    columns = columns or int(np.ceil(np.sqrt(maps)))
    lines = -(-maps // columns)
    figure = Figure(dpi=_DPI)
    FigureCanvasAgg(figure)
    src, tgt = ([label(token) for token in side] for side in (src_tokens, tgt_tokens))
    # Source labels that are wider than a cell are rotated. The margins fit the longest labels.
    left = _max_width(figure, tgt) + _PAD
    rotated = [_width(figure, *text) > 0.9 * _CELL for text in src]
    vertical = [text for text, turn in zip(src, rotated, strict=True) if turn]
    bottom = max(_max_width(figure, vertical), 2 * _FONT_SIZE / 72) + _PAD
    # The layout is computed in inches, since cells have a fixed size and the figure has not.
    width, height = (max(n * _CELL, 1.2) for n in (cols, rows))
    top = _GAP if titles else _PAD
    total_width = _PAD + left + columns * (width + _GAP) + _SCALE_WIDTH
    total_height = _PAD + bottom + lines * (height + top) + _PAD
    figure.set_size_inches(total_width, total_height)
    figure.set_dpi(min(_DPI, _MAX_PIXELS / max(total_width, total_height)))
    for m in range(maps):
        line, column = divmod(m, columns)
        x = _PAD + left + column * (width + _GAP)
        y = _PAD + bottom + (lines - 1 - line) * (height + top)
        axes = figure.add_axes(
            (x / total_width, y / total_height, width / total_width, height / total_height)
        )
        image = _draw_map(axes, attention[m])
        last_of_column = m + columns >= maps
        _label(axes, src if last_of_column else [], tgt if column == 0 else [], rotated)
        if titles:
            axes.set_title(titles[m], fontsize=_FONT_SIZE, pad=3, parse_math=False)
    x = (total_width - _SCALE_WIDTH) / total_width
    y = (total_height - _PAD - top - height) / total_height
    _draw_scale(figure, image, (x, y, 0.12 / total_width, height / total_height))
    return figure


def _draw_map(axes: Axes, attention: np.ndarray) -> AxesImage:
    axes.tick_params(length=0, pad=2)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(
        attention, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )


def _label(axes: Axes, src: Labels, tgt: Labels, rotated: list[bool]) -> None:
    """Writes source labels below a panel, some of them rotated, and target labels left of it."""
    axes.set_xticks(range(len(src)), [text for text, _ in src])
    axes.set_yticks(range(len(tgt)), [text for text, _ in tgt])
    tick_labels = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    for text, (_, font) in zip(tick_labels, [*src, *tgt], strict=True):
        text.set_fontproperties(font)
        text.set_fontsize(_FONT_SIZE)
        text.set_parse_math(False)  # a token may be a $
    for text, turn in zip(axes.get_xticklabels(), rotated, strict=False):
        text.set_rotation(90 if turn else 0)


def _draw_scale(figure: Figure, image: AxesImage, box: tuple[float, float, float, float]) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes(box), ticks=[0, 0.5, 1])
    bar.ax.tick_params(labelsize=_FONT_SIZE, length=2)


def _max_width(figure: Figure, labels: Labels) -> float:
    """Width of the widest label in inches; 0 if there are none."""
    return max((_width(figure, *text) for text in labels), default=0.0)


def _width(figure: Figure, text: str, font: FontProperties) -> float:
    """Width of a label in inches."""
    artist = figure.text(0, 0, text, font=font, fontsize=_FONT_SIZE, parse_math=False)
    width = artist.get_window_extent().width / figure.dpi
    artist.remove()
    return width


def save_figure(figure: Figure, path: Path) -> None:
    """Saves a figure as PNG or SVG, by the suffix of the path.

    Raises:
      InputError: the path has another suffix, or the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"{path} cannot be drawn: its name must end in .png or .svg")
    try:
        with atomic_write(path) as file:
            figure.savefig(file, format=kind)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
