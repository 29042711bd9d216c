"""Pictures, as matplotlib figures; pyplot and its global state stay out."""

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

_CELL = 0.2  # inches, room for a line of labels
_SIZE = 8.0  # points
_GAP = 0.3
_PAD = 0.12
_SCALE_WIDTH = 0.6
_DPI = 150
_MOST_PIXELS = 12_000

Labels = list[tuple[str, FontProperties]]


def attention_figure(
    weights: np.ndarray,
    src_tokens: Sequence[str],
    tgt_tokens: Sequence[str],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Where each target token looked: source left to right, target top to bottom.

    The darker a cell, the nearer its weight is to 1; it reads the same in greyscale.

    Args:
      weights: float [M, T, S], one panel a map.
      src_tokens, tgt_tokens: S and T labels, in any script.
      titles: M panel titles.
      columns: panels in a row; a square grid if left out.
    """
    maps, rows, cols = weights.shape
    columns = columns or int(np.ceil(np.sqrt(maps)))
    lines = -(-maps // columns)
    figure = Figure(dpi=_DPI)
    FigureCanvasAgg(figure)
    src, tgt = ([label(token) for token in side] for side in (src_tokens, tgt_tokens))
    left = _longest(figure, tgt) + _PAD
    upright = [_width(figure, *one) > 0.9 * _CELL for one in src]
    turned = [one for one, up in zip(src, upright, strict=True) if up]
    bottom = max(_longest(figure, turned), 2 * _SIZE / 72) + _PAD
    width, height = (max(n * _CELL, 1.2) for n in (cols, rows))
    top = _GAP if titles else _PAD
    total_width = _PAD + left + columns * (width + _GAP) + _SCALE_WIDTH
    total_height = _PAD + bottom + lines * (height + top) + _PAD
    figure.set_size_inches(total_width, total_height)
    figure.set_dpi(min(_DPI, _MOST_PIXELS / max(total_width, total_height)))
    for m in range(maps):
        line, column = divmod(m, columns)
        x = _PAD + left + column * (width + _GAP)
        y = _PAD + bottom + (lines - 1 - line) * (height + top)
        axes = figure.add_axes(
            (x / total_width, y / total_height, width / total_width, height / total_height)
        )
        image = _panel(axes, weights[m])
        last_of_column = m + columns >= maps
        _name(axes, src if last_of_column else [], tgt if column == 0 else [], upright)
        if titles:
            axes.set_title(titles[m], fontsize=_SIZE, pad=3, parse_math=False)
    x = (total_width - _SCALE_WIDTH) / total_width
    y = (total_height - _PAD - top - height) / total_height
    _scale(figure, image, (x, y, 0.12 / total_width, height / total_height))
    return figure


def _panel(axes: Axes, weights: np.ndarray) -> AxesImage:
    axes.tick_params(length=0, pad=2)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(
        weights, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )


def _name(axes: Axes, src: Labels, tgt: Labels, upright: list[bool]) -> None:
    """Labels along the bottom, those too wide for a cell turned, and along the left."""
    axes.set_xticks(range(len(src)), [text for text, _ in src])
    axes.set_yticks(range(len(tgt)), [text for text, _ in tgt])
    drawn = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    for text, (_, font) in zip(drawn, [*src, *tgt], strict=True):
        text.set_fontproperties(font)
        text.set_fontsize(_SIZE)
        text.set_parse_math(False)
    for text, turn in zip(axes.get_xticklabels(), upright, strict=False):
        text.set_rotation(90 if turn else 0)


def _scale(figure: Figure, image: AxesImage, place: tuple[float, float, float, float]) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes(place), ticks=[0, 0.5, 1])
    bar.ax.tick_params(labelsize=_SIZE, length=2)


def _longest(figure: Figure, labels: Labels) -> float:
    """Width in inches of the widest label."""
    return max((_width(figure, *one) for one in labels), default=0.0)


def _width(figure: Figure, text: str, font: FontProperties) -> float:
    """Width in inches of a label."""
    drawn = figure.text(0, 0, text, font=font, fontsize=_SIZE, parse_math=False)
    width = drawn.get_window_extent().width / figure.dpi
    drawn.remove()
    return width


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG or an SVG, whole or not at all.

    Raises:
      InputError: another suffix, or the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"{path} cannot be drawn: its name must end in .png or .svg")
    try:
        with atomic_write(path) as file:
            figure.savefig(file, format=kind)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
