"""Preprocessing of text before a vocabulary, and postprocessing of translations after it.

Unicode normalization, Moses tokenization and lower-casing. A vocabulary is built from preprocessed
text and is saved without its preprocessing, which the settings of the run describe.
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
from encdec.data.surfaces import Surfaces
from encdec.data.vocabulary import Vocabulary
from encdec.data.words import renumber
from encdec.types import SpecialIds

_TURKIC = ("tr", "az")
"""Languages in which I and i are two letters, each with a dotted and a dotless form."""


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of one side of the text.

    Attributes:
      normalization: nfkc replaces characters that look alike (ligatures, full-width letters) by
        one form; nfd splits letters from their accents and Hangul syllables into letters, and
        postprocessing joins them (NFC).
      tokenizer: moses separates punctuation from words by spaces, as the Moses scripts do.
      lowercase: whether letters are lower-cased, by the rules of the language.
      language: ISO 639-1 code; a language for which Moses has no rules gets those of English.
    """

    normalization: Literal["none", "nfkc", "nfd"] = "none"
    tokenizer: Literal["none", "moses"] = "none"
    lowercase: bool = False
    language: str = "en"

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every text as it is."""
        return not self.lowercase and (self.normalization, self.tokenizer) == ("none", "none")

    def preprocess(self, text: str) -> str:
        """Returns the text that the vocabulary encodes.

        Without Moses it is idempotent: a text that is preprocessed already does not change.
        """
        text = self._normalized(text)
        if self.tokenizer == "moses":
            # Before lower-casing: Moses keeps the dot of "Mr." only if it sees the capital.
            text = _moses_tokenizer(self.language)(text)
        # Some letters are one character with their accent in lower case only, such as ǰ.
        return self._normalized(lower(text, self.language)) if self.lowercase else text

    def _normalized(self, text: str) -> str:
        form: Any = self.normalization.upper()
        return text if form == "NONE" else unicodedata.normalize(form, text)

    def postprocess(self, text: str) -> str:
        """Joins Moses tokens and what nfd took apart; case and what nfkc replaced are lost."""
        if self.normalization == "nfd":
            text = unicodedata.normalize("NFC", text)
        if self.tokenizer == "moses":
            return _moses_detokenizer(self.language)(text.split())
        return text


@dataclass(frozen=True)
class PreprocessedVocabulary:
    """A vocabulary that preprocesses the text it encodes and postprocesses what it decodes.

    Attributes:
      vocabulary: built from preprocessed text.
      preprocessing: of that text.
    """

    vocabulary: Vocabulary
    preprocessing: Preprocessing

    @property
    def size(self) -> int:
        return self.vocabulary.size

    @property
    def specials(self) -> SpecialIds:
        return self.vocabulary.specials

    @property
    def before(self) -> tuple[int, ...]:
        return self.vocabulary.before

    @property
    def after(self) -> tuple[int, ...]:
        return self.vocabulary.after

    def encode(self, text: str) -> list[int]:
        return self.vocabulary.encode(self.preprocessing.preprocess(text))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return self.vocabulary.encode_all([self.preprocessing.preprocess(text) for text in texts])

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return self.vocabulary.sample_segmentation(ids, alpha, longest, rng)

    def decode(self, ids: Iterable[int]) -> str:
        return self.preprocessing.postprocess(self.vocabulary.decode(ids))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return self.vocabulary.tokens(ids)

    def words(self, ids: Sequence[int], text: str) -> list[int]:
        bare = self.preprocessing.preprocess(text)
        numbers = self.vocabulary.words(ids, bare)
        # Preprocessing may change how many characters a word has, but not their order.
        others = [self.preprocessing.preprocess(word) for word in text.split()]
        if len(bare.split()) == len(others):
            return numbers
        return renumber(numbers, bare.split(), ["".join(word.split()) for word in others])

    @property
    def surfaces(self) -> Surfaces:
        return self.vocabulary.surfaces

    def to_json(self) -> dict[str, Any]:
        return self.vocabulary.to_json()


def with_preprocessing(vocabulary: Vocabulary, preprocessing: Preprocessing) -> Vocabulary:
    """Adds preprocessing to a vocabulary; returns it unchanged where there is none."""
    if preprocessing.is_identity:
        return vocabulary
    return PreprocessedVocabulary(vocabulary, preprocessing)


def preprocessings(data: DataConfig) -> tuple[Preprocessing, Preprocessing]:
    """The preprocessing of the source side and of the target side."""
    how = (data.normalization, data.tokenizer, data.lowercase)
    return Preprocessing(*how, data.source_language), Preprocessing(*how, data.target_language)


def lower(text: str, language: str) -> str:
    """Lower-cases a text by the rules of a language (ISO 639-1)."""
    if language in _TURKIC:
        text = text.replace("I\u0307", "i").replace("İ", "i").replace("I", "ı")
    return text.lower()


@cache
def _moses_tokenizer(language: str) -> Callable[[str], str]:
    """A function from text to tokens with spaces between them, unescaped: & stays &, not &amp;."""
    from sacremoses import MosesTokenizer

    tokenizer = MosesTokenizer(language)
    # Most combining marks are not in Perl's IsAlnum: Moses would split them from their letters.
    word = tokenizer.IsAlnum + _combining_marks()
    tokenizer.PAD_NOT_ISALNUM = (re.compile(rf"([^{word}\s\.'\`\,\-])"), r" \1 ")
    return lambda text: tokenizer.tokenize(text, return_str=True, escape=False)


@cache
def _moses_detokenizer(language: str) -> Callable[[list[str]], str]:
    from sacremoses import MosesDetokenizer

    detokenizer = MosesDetokenizer(language)
    return lambda tokens: detokenizer.detokenize(tokens, unescape=False)


@cache
def _combining_marks() -> str:
    """All combining marks and the two joiners, which belong to the letter before them."""
    characters = map(chr, range(sys.maxunicode + 1))
    return "\u200c\u200d" + "".join(c for c in characters if unicodedata.category(c)[0] == "M")
