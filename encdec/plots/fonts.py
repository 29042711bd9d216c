"""A font for every label: which one has a text's characters, and what stands in for those without.

matplotlib brings DejaVu (Latin, Greek, Cyrillic, Arabic, Hebrew); Noto fonts come as packages.
From 3.11 it joins and orders letters as these scripts do; before, it draws one after the other from
the left, so that Arabic, Hebrew and Devanagari are hard to read.
"""

import unicodedata
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import matplotlib
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font

_PACKAGES = (
    "noto_cjk_sans_jp_regular",  # all of Chinese, Japanese and Korean
    "fontpkg_noto_sans_devanagari",
    "fontpkg_noto_sans_thai",
)

_NAMES = {"": "∅", " ": "␣", "\u00a0": "␣", "\u3000": "␣"}


@cache
def _files() -> tuple[Path, ...]:
    """Font files in the order of preference: matplotlib's, those of packages, the system's."""
    own = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    packaged = [
        file
        for spec in filter(None, map(find_spec, _PACKAGES))
        for folder in spec.submodule_search_locations or ()
        for file in sorted(Path(folder).rglob("*.[ot]tf"))
    ]
    system = [Path(font.fname) for font in fontManager.ttflist if font.style == "normal"]
    return own, *packaged, *(path for path in system if path.suffix in (".ttf", ".otf"))


@cache
def _characters(file: Path) -> frozenset[int]:
    """Code points that a font file has glyphs for; none where the file cannot be read."""
    try:
        return frozenset(FT2Font(str(file)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def label(token: str) -> tuple[str, FontProperties]:
    """A token as it can be drawn, and the font to draw it in.

    White space and nothing become ␣ and ∅; a combining mark alone gets a dotted circle; a token
    that no font can draw becomes its code points.
    """
    text = _NAMES.get(token, token)
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text):
        text = _code_points(text)
    elif all(unicodedata.category(c).startswith("M") for c in text):
        text = "◌" + text
    for candidate in (text, text.removeprefix("◌"), _code_points(token)):
        for file in _files():
            # matplotlib before 3.11 measures a line's height by "lp", in the font of the line.
            if _characters(file).issuperset(map(ord, candidate + "lp")):
                return candidate, FontProperties(fname=str(file))
    raise AssertionError("matplotlib's own font has all of ASCII")


def _code_points(text: str) -> str:
    return " ".join(f"U+{ord(c):04X}" for c in text)
