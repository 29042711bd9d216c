"""Figures: labels lie inside and do not overlap, in any script, and no letter is missing."""

import itertools
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.image import imread
from matplotlib.text import Text

from encdec.plots.attention import attention_figure, save_figure
from encdec.plots.fonts import label
from encdec.types import InputError

SCRIPTS = {
    "latin": ["3.", "Mai", "1979", "<eos>"],
    "pieces": ["▁Don", "ners", "tag", " ", "", "$x_1^2$", "\t"],
    "chinese": ["一", "九", "七", "九年", "五月"],
    "japanese": ["ひらがな", "カタカナ", "漢字"],
    "korean": ["일", "월", "천구백"],
    "arabic": ["مايو", "الخميس", "٣"],
    "hebrew": ["יום", "חמישי"],
    "devanagari": ["गुरुवार", "मई", "३", "ि"],
    "thai": ["พฤษภาคม", "วัน", "์"],
    "cyrillic-greek": ["мая", "Μαΐου"],
    "unknown": ["\U0001fbff", "\ue000"],
}


def figure(src: list[str], tgt: list[str], maps: int = 1, **options) -> Figure:
    weights = np.random.default_rng(0).dirichlet(np.ones(len(src)), (maps, len(tgt)))
    return attention_figure(weights, src, tgt, **options)


def texts(fig: Figure) -> list[Text]:
    fig.canvas.draw()
    return [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_label_has_its_glyphs_and_its_place(script: str) -> None:
    fig = figure(SCRIPTS[script], SCRIPTS[script])
    inside = fig.bbox.padded(1)
    labels = texts(fig)
    assert len(labels) == 2 * len(SCRIPTS[script]) + 3  # both axes and the scale
    boxes = [t.get_window_extent() for t in labels]
    for text, box in zip(labels, boxes, strict=True):
        assert inside.containsx(box.x0), text
        assert inside.containsx(box.x1), text
        assert inside.containsy(box.y0), text
        assert inside.containsy(box.y1), text
        glyphs = get_font(findfont(text.get_fontproperties())).get_charmap()
        assert all(ord(c) in glyphs for c in text.get_text()), text
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-0.5).overlaps(other.padded(-0.5))


def test_cells_are_the_weights() -> None:
    weights = np.array([[[1.0, 0.0, 0.0], [0.25, 0.25, 0.5]]])
    fig = attention_figure(weights, ["a", "b", "c"], ["x", "y"])
    image = fig.axes[0].images[0]
    np.testing.assert_array_equal(image.get_array(), weights[0])
    assert image.get_clim() == (0, 1)
    shades = image.cmap(image.norm(np.linspace(0, 1, 11)))[:, :3]
    assert (np.ptp(shades, axis=1) < 1e-6).all()  # grey
    assert (np.diff(shades[:, 0]) < 0).all()  # and darker the more weight


def test_a_panel_for_each_map() -> None:
    titles = [f"layer {l}, head {h}" for l in (1, 2) for h in (1, 2, 3)]
    fig = figure(["a", "b"], ["x", "y", "z", "w", "v"], maps=6, titles=titles, columns=3)
    panels = fig.axes[:6]
    assert [axes.get_title() for axes in panels] == titles
    tops = [round(axes.get_position().y1, 6) for axes in panels]
    assert tops[0] == tops[1] == tops[2] > tops[3] == tops[4] == tops[5]
    boxes = [axes.get_position() for axes in panels]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_white_space_and_nothing_are_named() -> None:
    assert [label(token)[0] for token in ("", " ", "\u200f", "\u093f")] == [
        "∅",
        "␣",
        "U+200F",
        "◌ि",
    ]


def test_files(tmp_path: Path) -> None:
    fig = figure(["一", "b"], ["x", "مايو"])
    save_figure(fig, tmp_path / "map.png")
    assert imread(tmp_path / "map.png").ndim == 3
    save_figure(fig, tmp_path / "map.SVG")
    assert ElementTree.parse(tmp_path / "map.SVG").getroot().tag.endswith("svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.SVG", "map.png"]
    with pytest.raises(InputError, match=r"map.gif .* must end in .png or .svg"):
        save_figure(fig, tmp_path / "map.gif")
    with pytest.raises(InputError, match=r"nowhere.map.png cannot be written: No such file"):
        save_figure(fig, tmp_path / "nowhere" / "map.png")
