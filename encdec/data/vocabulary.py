"""Text to token ids and back: characters, words, bytes or SentencePiece behind one interface.

The special ids (padding, start, end, unknown) are the vocabulary's own: `Vocabulary.specials`.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from encdec.data.sentencepiece_model import (
    UNKNOWN_LABEL,
    SentencePieceType,
    SentencePieceVocabulary,
    too_large,
    train,
)
from encdec.files import write_text
from encdec.types import InputError, SpecialIds

Kind = Literal["chars", "words", "bytes", "sentencepiece"]

_FORMAT = "encdec vocabulary 1"
_SPECIALS = SpecialIds()
_LABELS = ("<pad>", "<s>", "</s>", UNKNOWN_LABEL)
"""Labels of the special ids, in the order of `SpecialIds`."""
_FIRST = len(_LABELS)
"""The first id of a token that is no special one."""


class Vocabulary(Protocol):
    """All that the rest of the library uses of a vocabulary."""

    @property
    def size(self) -> int:
        """Number of ids, special ids included."""

    @property
    def specials(self) -> SpecialIds:
        """Which ids pad, start and end a sentence, and stand for unknown tokens."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without start and end; an unknown token gets the unknown id."""

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; one call for many texts can be faster."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids: pad, start and end leave no trace, the unknown id becomes ⁇."""

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """A label for each id, for plots: `</s>` for the end token, ▁ for a space."""

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        """Draws another segmentation of the text of `encode`d ids (subword regularization).

        Only SentencePiece has several segmentations; other vocabularies return the ids unchanged.
        With a unigram model, alpha is the exponent of a segmentation's probability (Kudo 2018): at
        0 all are equally likely. With BPE, alpha is the probability that a merge is left out
        (BPE-dropout, Provilkov 2020).

        Args:
          ids: of one sentence, at most `longest`.
          alpha: see above.
          longest: the result has at most this many ids.
          rng: the source of randomness.
        """

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `load` builds this vocabulary again."""


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
        return {token: _FIRST + i for i, token in enumerate(self.table)}

    @property
    def size(self) -> int:
        return _FIRST + len(self.table)

    @property
    def specials(self) -> SpecialIds:
        return _SPECIALS

    def encode(self, text: str) -> list[int]:
        ids, unknown = self._ids, _SPECIALS.unknown
        return [ids.get(token, unknown) for token in _split(self.kind, text)]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        separator = "" if self.kind == "chars" else " "
        return separator.join(self._label(i) for i in ids if i >= _SPECIALS.unknown)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return ["▁" if label == " " else label for label in map(self._label, ids)]

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return list(ids)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": self.table}

    def _label(self, i: int) -> str:
        return _LABELS[i] if i < _FIRST else self.table[i - _FIRST]


@dataclass(frozen=True)
class ByteVocabulary:
    """The bytes of UTF-8: byte b has the id 4 + b, and no text is unknown."""

    @property
    def size(self) -> int:
        return _FIRST + 256

    @property
    def specials(self) -> SpecialIds:
        return _SPECIALS

    def encode(self, text: str) -> list[int]:
        return [_FIRST + byte for byte in text.encode("utf-8", "replace")]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        unknown = _SPECIALS.unknown
        parts = (
            UNKNOWN_LABEL.encode() if i == unknown else bytes([i - _FIRST])
            for i in ids
            if i >= unknown
        )
        return b"".join(parts).decode("utf-8", "replace")

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [_LABELS[i] if i < _FIRST else _byte_label(i - _FIRST) for i in ids]

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
        return _SPECIALS

    def encode(self, text: str) -> list[int]:
        return [self._id(token) for token in text.split()]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(self._label(i) for i in ids if i >= _SPECIALS.unknown)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._label(i) for i in ids]

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return list(ids)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "ids", "size": self.size}

    def _label(self, i: int) -> str:
        return _LABELS[i] if i < _FIRST else str(i)

    def _id(self, token: str) -> int:
        if not (token.isascii() and token.isdigit() and _FIRST <= int(token) < self.size):
            raise InputError(
                f"{token!r} is not a token id: the run was trained on batches of ids, and has no "
                f"vocabulary to read text with; give numbers from {_FIRST} to {self.size - 1} with "
                "spaces between"
            )
        return int(token)


def build(
    kind: Kind,
    texts: Iterable[str],
    size: int | None,
    model_type: SentencePieceType = "unigram",
) -> Vocabulary:
    """Builds a vocabulary from texts.

    Args:
      kind: what a token is.
      texts: sentences; read once.
      size: number of ids, special ids included. None takes every character or word; for
        SentencePiece it means 8,000, or as many as a smaller text allows.
      model_type: the SentencePiece model: a unigram language model or BPE (Sennrich 2016).

    Raises:
      InputError: there is no text, or the texts do not allow the size; the error names one that
        they allow.
    """
    if kind == "bytes":
        if size not in (None, _FIRST + 256):
            raise InputError(f"vocabulary_size = {size} cannot be used: bytes have 260 tokens")
        return ByteVocabulary()
    if kind == "sentencepiece":
        return train(texts, size, model_type)
    return TableVocabulary(kind, _most_frequent(kind, texts, size))


def digest(vocabulary: Vocabulary) -> str:
    """SHA-256 (hex) of everything that determines how text becomes ids."""
    tree = json.dumps(vocabulary.to_json(), sort_keys=True)
    return hashlib.sha256(tree.encode("utf-8", "surrogatepass")).hexdigest()


def save(vocabulary: Vocabulary, path: str | Path) -> None:
    """Writes a vocabulary of any kind as one JSON file."""
    tree = {"format": _FORMAT, **vocabulary.to_json()}
    write_text(Path(path), json.dumps(tree) + "\n")


def load(path: str | Path) -> Vocabulary:
    """Reads the vocabulary that `save` wrote.

    Raises:
      InputError: the file is missing, damaged, or not a vocabulary.
    """
    try:
        tree = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not a vocabulary that encdec saved") from error
    if not isinstance(tree, dict) or tree.get("format") != _FORMAT:
        raise InputError(f"{path} is not a vocabulary that encdec saved")
    try:
        return _from_json(tree)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is a damaged vocabulary: copy the run folder again") from error


def _from_json(tree: dict[str, Any]) -> Vocabulary:
    kind = tree["kind"]
    if kind == "bytes":
        return ByteVocabulary()
    if kind == "ids":
        return IdVocabulary(int(tree["size"]))
    if kind == "sentencepiece":
        vocabulary = SentencePieceVocabulary(base64.b64decode(tree["model"], validate=True))
        shown = vocabulary.decode([vocabulary.specials.unknown]).strip()
        if vocabulary.specials != _SPECIALS or shown != UNKNOWN_LABEL:
            raise ValueError("the special ids are not those that `train` gives")
        return vocabulary
    table = tuple(tree["table"])
    distinct = len(set(table)) == len(table)
    if kind not in ("chars", "words") or not distinct or not all(isinstance(t, str) for t in table):
        raise ValueError("the table is not one of distinct tokens")
    return TableVocabulary(kind, table)


def _split(kind: str, text: str) -> Sequence[str]:
    return text if kind == "chars" else text.split()


def _byte_label(byte: int) -> str:
    return "▁" if byte == 0x20 else chr(byte) if 0x20 < byte < 0x7F else f"x{byte:02X}"


def _most_frequent(kind: str, texts: Iterable[str], size: int | None) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_split(kind, text))
    if not counts:
        raise InputError(f"there is no text to take a vocabulary of {kind} from")
    if size is not None and size > _FIRST + len(counts):
        raise too_large(size, _FIRST + len(counts))
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return tuple(ranked if size is None else ranked[: size - _FIRST])
