"""Sentences of a paragraph, and paragraphs of sentences. Needs the extra `paragraphs` (sentencex).

Nothing is lost: the sentences and the white space between them are the paragraph.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from encdec.types import InputError

_WHITE_SPACE = re.compile(r"\s")
_BREAKS = (
    re.compile(r"[;:؛；：]['\"’”»›)\]]*\s+|[；：]\s*"),
    re.compile(r"[,،]['\"’”»›)\]]*\s+|[，、][’”」』]*\s*"),
    re.compile(r"\s+"),
    re.compile(r"(?<=.)(?=.)", re.DOTALL),
)
"""Where a sentence may be cut, the best places first."""
_WITHOUT_SPACES = ("zh", "yue", "ja")
"""Languages whose sentences follow each other without a space."""


class Paragraph(NamedTuple):
    """A text in parts: gaps[0], sentences[0], gaps[1], ..., sentences[-1], gaps[-1].

    Attributes:
      sentences: without white space around them, none of them empty.
      gaps: white space or "", one more than sentences.
    """

    sentences: list[str]
    gaps: list[str]


def split_paragraph(
    text: str, language: str, fits: Callable[[str], bool] = lambda sentence: True
) -> Paragraph:
    """Splits a text into sentences, by the rules of sentencex.

    Args:
      text: any text.
      language: its code, such as de, deu or deu_Latn; one that sentencex does not know gets the
        rules of a similar one.
      fits: whether a sentence is short enough to be translated as a whole. One that is not is cut
        near its middle, after a semicolon or colon, else after a comma, else at white space, else
        between any two characters, until its parts fit.

    Raises:
      InputError: sentencex is not installed.
    """
    paragraph = Paragraph([], [""])
    for sentence in _sentences(text, language_of(language)):
        for part in _parts(sentence, fits):
            inner = part.strip()
            end = len(part) if not inner else part.index(inner) + len(inner)
            paragraph.gaps[-1] += part[: end - len(inner)]
            if inner:
                paragraph.sentences.append(inner)
                paragraph.gaps.append(part[end:])
    return paragraph


def join_paragraph(translations: Sequence[str], gaps: Sequence[str], source: str, to: str) -> str:
    """Puts the translations of a paragraph's sentences together.

    The white space between them is that of the source. But in Chinese and Japanese, sentences
    follow each other without spaces: into these languages spaces are dropped, and from one of them
    into another language they are added.

    Args:
      translations: of the sentences, in order.
      gaps: of the paragraph, one more than translations.
      source, to: codes of the two languages.
    """
    first, *rest = gaps
    spaced, to_spaced = (language_of(code) not in _WITHOUT_SPACES for code in (source, to))
    inner = rest[:-1]
    if spaced and not to_spaced:
        inner = [gap.replace(" ", "") for gap in inner]
    elif to_spaced and not spaced:
        inner = [gap.replace("\u3000", " ") or " " for gap in inner]
    parts = [text + gap for text, gap in zip(translations, [*inner, *rest[-1:]], strict=True)]
    return first + "".join(parts)


def language_of(code: str) -> str:
    """The shortest code of a language: de for de, de_DE, deu and deu_Latn."""
    from babel.core import get_global

    tag = re.split("[-_]", code.lower())[0]
    shortest: str = get_global("language_aliases").get(tag, tag)
    return shortest


def _sentences(text: str, language: str) -> list[str]:
    """The sentences of a text, each with the white space after it."""
    try:
        from sentencex import segment
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed, which splits paragraphs into sentences: "
            'pip install "encdec[paragraphs]" (".[paragraphs]" in a clone)'
        ) from error
    # White space of other kinds stops sentencex 1.0 (U+00A0 before an initial), so it sees spaces.
    found = segment(language, _WHITE_SPACE.sub(" ", text))
    ends = list(accumulate(map(len, found), initial=0))
    if ends[-1] != len(text):  # it has lost or added a character
        return [text]
    return [text[start:end] for start, end in pairwise(ends)]


def _parts(sentence: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """Cuts a sentence until its parts fit; white space stays at the end of a part."""
    places = [] if fits(sentence.strip()) else _places(sentence)
    if not places:
        yield sentence
        return
    middle = min(places, key=lambda place: abs(2 * place - len(sentence)))
    yield from _parts(sentence[:middle], fits)
    yield from _parts(sentence[middle:], fits)


def _places(sentence: str) -> list[int]:
    """The best places to cut a sentence at; none in a single character."""
    last = len(sentence.rstrip())
    for kind in _BREAKS:
        places = [match.end() for match in kind.finditer(sentence)]
        # A part does not begin with a mark that belongs to the letter before it.
        inside = [p for p in places if 0 < p < last and not unicodedata.combining(sentence[p])]
        if inside:
            return inside
    return []
