"""Fonts for labels in any script.

matplotlib includes DejaVu (Latin, Greek, Cyrillic, Arabic, Hebrew); packages provide Noto fonts for
other scripts. From version 3.11 on matplotlib shapes complex scripts; earlier versions draw letters
one by one from left to right, so that Arabic, Hebrew and Devanagari are hard to read.
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

_VISIBLE = {"": "∅", " ": "␣", "\u00a0": "␣", "\u3000": "␣"}
"""Texts that cannot be seen, and the signs that are drawn for them."""


@cache
def _files() -> tuple[Path, ...]:
    """Font files by preference: first matplotlib's, then those of packages, then the system's."""
    dejavu = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    packaged = [
        file
        for spec in filter(None, map(find_spec, _PACKAGES))
        for folder in spec.submodule_search_locations or ()
        for file in sorted(Path(folder).rglob("*.[ot]tf"))
    ]
    system = [Path(font.fname) for font in fontManager.ttflist if font.style == "normal"]
    return dejavu, *packaged, *(path for path in system if path.suffix in (".ttf", ".otf"))


@cache
def _characters(file: Path) -> frozenset[int]:
    """Code points for which a font file has glyphs; none if the file cannot be read."""
    try:
        return frozenset(FT2Font(str(file)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def label(token: str) -> tuple[str, FontProperties]:
    """Returns the text to draw for a token, and a font that has its characters.

    White space is drawn as ␣, an empty token as ∅, combining marks without a letter on a dotted
    circle, and a token that no font has as its code points.
    """
    text = _VISIBLE.get(token, token)
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text):
        text = _code_points(text)
    elif all(unicodedata.category(c).startswith("M") for c in text):
        text = "◌" + text
    for candidate in (text, text.removeprefix("◌"), _code_points(token)):
        for file in _files():
            # matplotlib before 3.11 measures "lp" in the same font to know the height of a line.
            if _characters(file).issuperset(map(ord, candidate + "lp")):
                return candidate, FontProperties(fname=str(file))
    raise AssertionError("DejaVu has all of ASCII")


def _code_points(text: str) -> str:
    return " ".join(f"U+{ord(c):04X}" for c in text)
