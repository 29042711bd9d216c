"""Vocabularies that need no training: characters, words, bytes, ids written as numbers.

Their special ids are 0 to 3, in the order of `SpecialIds`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from encdec.data.sentencepiece_model import UNKNOWN_LABEL
from encdec.data.surfaces import Surfaces
from encdec.data.words import SPACE, word_numbers
from encdec.files import shortened
from encdec.types import InputError, SpecialIds

SPECIALS = SpecialIds()
FIRST = len(SPECIALS)
"""The first id that is not special."""
_LABELS = ("<pad>", "<s>", "</s>", UNKNOWN_LABEL)
"""Labels of the special ids."""


@dataclass(frozen=True)
class TableVocabulary:
    """Each character, or each word between white space, has an id.

    Attributes:
      kind: what a token is.
      table: the tokens; token i has the id 4 + i.
    """

    kind: Literal["chars", "words"]
    table: tuple[str, ...]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: FIRST + i for i, token in enumerate(self.table)}

    @property
    def size(self) -> int:
        return FIRST + len(self.table)

    @property
    def specials(self) -> SpecialIds:
        return SPECIALS

    before = after = ()

    def encode(self, text: str) -> list[int]:
        ids, unknown = self._ids, SPECIALS.unknown
        return [ids.get(token, unknown) for token in split(self.kind, text)]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        separator = "" if self.kind == "chars" else " "
        return separator.join(self._label(i) for i in ids if i >= SPECIALS.unknown)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return ["▁" if label == " " else label for label in map(self._label, ids)]

    def words(self, ids: Sequence[int], text: str) -> list[int]:
        gap = "" if self.kind == "chars" else SPACE
        labels = [gap + self._label(i) if i >= SPECIALS.unknown else None for i in ids]
        return word_numbers(labels, text)

    @cached_property
    def surfaces(self) -> Surfaces:
        space = " " if self.kind == "words" else ""
        texts = (UNKNOWN_LABEL, *self.table)
        each = [f"{space}{text}".encode("utf-8", "replace") for text in texts]
        return Surfaces([b""] * (FIRST - 1) + each)

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return list(ids)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": self.table}

    def _label(self, i: int) -> str:
        return _LABELS[i] if i < FIRST else self.table[i - FIRST]


@dataclass(frozen=True)
class ByteVocabulary:
    """The bytes of UTF-8: byte b has the id 4 + b, and no text is unknown."""

    @property
    def size(self) -> int:
        return FIRST + 256

    @property
    def specials(self) -> SpecialIds:
        return SPECIALS

    before = after = ()

    def encode(self, text: str) -> list[int]:
        return [FIRST + byte for byte in text.encode("utf-8", "replace")]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        unknown = SPECIALS.unknown
        parts = (
            UNKNOWN_LABEL.encode() if i == unknown else bytes([i - FIRST])
            for i in ids
            if i >= unknown
        )
        return b"".join(parts).decode("utf-8", "replace")

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [_LABELS[i] if i < FIRST else byte_label(i - FIRST) for i in ids]

    def words(self, ids: Sequence[int], text: str) -> list[int]:
        labels = self.tokens(ids)
        named = [None if i < SPECIALS.unknown else labels[n] for n, i in enumerate(ids)]
        return word_numbers(named, text)

    @cached_property
    def surfaces(self) -> Surfaces:
        silent = [b""] * (FIRST - 1)
        return Surfaces([*silent, UNKNOWN_LABEL.encode(), *(bytes([b]) for b in range(256))])

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return list(ids)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "bytes"}


@dataclass(frozen=True)
class IdVocabulary:
    """Token ids as numbers with spaces between, "17 4 9": for a run trained without text."""

    size: int

    @property
    def specials(self) -> SpecialIds:
        return SPECIALS

    before = after = ()

    def encode(self, text: str) -> list[int]:
        return [self._id(token) for token in text.split()]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(self._label(i) for i in ids if i >= SPECIALS.unknown)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._label(i) for i in ids]

    def words(self, ids: Sequence[int], text: str) -> list[int]:
        labels = [SPACE + self._label(i) if i >= SPECIALS.unknown else None for i in ids]
        return word_numbers(labels, text)

    @cached_property
    def surfaces(self) -> Surfaces:
        shown = range(SPECIALS.unknown, self.size)
        return Surfaces([b""] * (FIRST - 1) + [f" {self._label(i)}".encode() for i in shown])

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return list(ids)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "ids", "size": self.size}

    def _label(self, i: int) -> str:
        return _LABELS[i] if i < FIRST else str(i)

    def _id(self, token: str) -> int:
        bare = token.lstrip("0") if token.isascii() and token.isdigit() else ""
        # Python reads no number of more than 4,300 digits.
        if 0 < len(bare) <= len(str(self.size)) and FIRST <= int(bare) < self.size:
            return int(bare)
        raise InputError(
            f"{shortened(token)} is not a token id: the run was trained on batches of ids, and has "
            f"no vocabulary to read text with; give numbers from {FIRST} to {self.size - 1} with "
            "spaces between"
        )


def split(kind: str, text: str) -> Sequence[str]:
    """The tokens of a text for a `TableVocabulary` of this kind."""
    return text if kind == "chars" else text.split()


def byte_label(byte: int) -> str:
    return "▁" if byte == 0x20 else chr(byte) if 0x20 < byte < 0x7F else f"x{byte:02X}"
