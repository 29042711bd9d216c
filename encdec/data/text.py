"""Text on its way to a vocabulary and back: Unicode normalisation, Moses tokens, lower case.

A vocabulary is built from prepared text and stays plain on disk; `PreprocessedVocabulary` puts the
preparation before it and the restoration behind it.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from encdec.config import DataConfig
from encdec.data.vocabulary import Vocabulary
from encdec.types import SpecialIds

_TURKIC = ("tr", "az")  # I and i are two letters, with a dot or without, in both cases


@dataclass(frozen=True)
class Preprocessing:
    """How the text of one side is prepared, and made fit to read again.

    Attributes:
      normalization: nfkc folds what looks alike (ﬁ, full-width letters) into one form.
      tokenizer: moses sets what is punctuation apart with spaces, as the Moses scripts do.
      lowercase: whether letters become small, by the rules of the language.
      language: two letters (ISO 639-1); one that Moses has no rules for gets those of English.
    """

    normalization: Literal["none", "nfkc"] = "none"
    tokenizer: Literal["none", "moses"] = "none"
    lowercase: bool = False
    language: str = "en"

    @property
    def changes(self) -> bool:
        """Whether it does anything at all."""
        return self.lowercase or (self.normalization, self.tokenizer) != ("none", "none")

    def prepare(self, text: str) -> str:
        """Text as the vocabulary sees it. To prepare twice without Moses changes no more."""
        if self.normalization == "nfkc":
            text = unicodedata.normalize("NFKC", text)
        if self.tokenizer == "moses":  # before lower-casing: "Mr." keeps its dot by its capital
            text = _split(self.language)(text)
        return lower(text, self.language) if self.lowercase else text

    def restore(self, text: str) -> str:
        """Text for a reader: Moses tokens joined. Case and Unicode forms do not come back."""
        return _join(self.language)(text.split()) if self.tokenizer == "moses" else text


@dataclass(frozen=True)
class PreprocessedVocabulary:
    """A vocabulary of prepared text that takes any text and gives text to read."""

    plain: Vocabulary
    preparation: Preprocessing

    @property
    def size(self) -> int:
        return self.plain.size

    @property
    def specials(self) -> SpecialIds:
        return self.plain.specials

    def encode(self, text: str) -> list[int]:
        return self.plain.encode(self.preparation.prepare(text))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return self.plain.encode_all([self.preparation.prepare(text) for text in texts])

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return self.plain.sample_segmentation(ids, alpha, longest, rng)

    def decode(self, ids: Iterable[int]) -> str:
        return self.preparation.restore(self.plain.decode(ids))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return self.plain.tokens(ids)

    def to_json(self) -> dict[str, Any]:
        return self.plain.to_json()


def prepared(plain: Vocabulary, preparation: Preprocessing) -> Vocabulary:
    """The vocabulary with its preparation, or as it is where there is none."""
    return PreprocessedVocabulary(plain, preparation) if preparation.changes else plain


def preprocessings(data: DataConfig) -> tuple[Preprocessing, Preprocessing]:
    """How the text of either side is prepared before its vocabulary sees it."""
    how = (data.normalization, data.tokenizer, data.lowercase)
    return Preprocessing(*how, data.source_language), Preprocessing(*how, data.target_language)


def lower(text: str, language: str) -> str:
    """Small letters, by the rules of a language (ISO 639-1)."""
    if language in _TURKIC:
        text = text.replace("I\u0307", "i").replace("İ", "i").replace("I", "ı")
    return text.lower()


@cache
def _split(language: str) -> Callable[[str], str]:
    """Text to tokens with spaces between, unescaped: & stays &, not &amp;."""
    from sacremoses import MosesTokenizer

    tokenizer = MosesTokenizer(language)
    # Perl's IsAlnum leaves most combining marks out, and Moses would set them apart.
    word = tokenizer.IsAlnum + _marks()
    tokenizer.PAD_NOT_ISALNUM = (re.compile(rf"([^{word}\s\.'\`\,\-])"), r" \1 ")
    return lambda text: tokenizer.tokenize(text, return_str=True, escape=False)


@cache
def _join(language: str) -> Callable[[list[str]], str]:
    from sacremoses import MosesDetokenizer

    joiner = MosesDetokenizer(language)
    return lambda tokens: joiner.detokenize(tokens, unescape=False)


@cache
def _marks() -> str:
    """All combining marks and the two joiners: no letter, yet never apart from one."""
    every = map(chr, range(sys.maxunicode + 1))
    return "\u200c\u200d" + "".join(c for c in every if unicodedata.category(c)[0] == "M")
