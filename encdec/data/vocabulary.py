"""Text to token ids and back: characters, words, bytes or SentencePiece behind one interface."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from encdec.data.sentencepiece_model import (
    SentencePieceType,
    SentencePieceVocabulary,
    too_large,
    train,
)
from encdec.data.specials import FIRST, SPECIALS
from encdec.files import write_text
from encdec.types import EOS, UNK, InputError

Item = TypeVar("Item")
Kind = Literal["chars", "words", "bytes", "sentencepiece"]

_FORMAT = "encdec vocabulary 1"


class Vocabulary(Protocol):
    """What the rest of the library knows of a vocabulary. Ids 0 to 3 are PAD, BOS, EOS, UNK."""

    @property
    def size(self) -> int:
        """Number of ids, the four special ones included."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text: no BOS or EOS is added, and what is unknown becomes UNK."""

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; many at once can be faster."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids: PAD, BOS and EOS leave no trace, UNK becomes ⁇."""

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One label an id, for plots: `</s>` for EOS, ▁ for a space."""

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        """Another way to cut the text of `encode`d ids, at random: subword regularisation.

        Only sentencepiece knows any. For a unigram model alpha is the exponent of a segmentation's
        probability (Kudo 2018), towards 0 all are as likely; for byte pairs the chance that a merge
        is left out (BPE-dropout, Provilkov 2020).

        Args:
          ids: of one sentence, no longer than `longest`.
          alpha: how far from the likeliest.
          longest: most ids of the result.
          rng: whence the chance comes.
        """

    def to_json(self) -> dict[str, Any]:
        """All that `load` needs to build this vocabulary again."""


@dataclass(frozen=True)
class TableVocabulary:
    """Characters or words (what white space separates), each with an id of its own."""

    kind: Literal["chars", "words"]
    table: tuple[str, ...]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: FIRST + i for i, token in enumerate(self.table)}

    @property
    def size(self) -> int:
        return FIRST + len(self.table)

    def encode(self, text: str) -> list[int]:
        ids = self._ids
        return [ids.get(token, UNK) for token in _split(self.kind, text)]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        joint = "" if self.kind == "chars" else " "
        return joint.join(self._label(i) for i in ids if i >= UNK)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return ["▁" if label == " " else label for label in map(self._label, ids)]

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return list(ids)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": self.table}

    def _label(self, i: int) -> str:
        return SPECIALS[i] if i < FIRST else self.table[i - FIRST]


@dataclass(frozen=True)
class ByteVocabulary:
    """The bytes of UTF-8: byte b has the id 4 + b, and no text is unknown."""

    @property
    def size(self) -> int:
        return FIRST + 256

    def encode(self, text: str) -> list[int]:
        return [FIRST + byte for byte in text.encode("utf-8", "replace")]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        unknown = SPECIALS[UNK].encode()
        parts = (unknown if i == UNK else bytes([i - FIRST]) for i in ids if i >= UNK)
        return b"".join(parts).decode("utf-8", "replace")

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [SPECIALS[i] if i < FIRST else _byte_label(i - FIRST) for i in ids]

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return list(ids)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "bytes"}


def build(
    kind: Kind, texts: Iterable[str], size: int | None, pieces: SentencePieceType = "unigram"
) -> Vocabulary:
    """The vocabulary of some texts.

    Args:
      kind: what a token is.
      texts: sentences; read once.
      size: ids in the vocabulary, special ones included. None takes all of the characters or
        words; for sentencepiece it means 8,000, or what a smaller text allows.
      pieces: how sentencepiece cuts, a unigram language model or byte pairs (Sennrich 2016).

    Raises:
      InputError: no text, or a size that the texts do not allow, with one that they do.
    """
    if kind == "bytes":
        if size not in (None, FIRST + 256):
            raise InputError(f"vocabulary_size = {size} cannot be used: bytes have 260 tokens")
        return ByteVocabulary()
    if kind == "sentencepiece":
        return train(texts, size, pieces)
    return TableVocabulary(kind, _most_frequent(kind, texts, size))


def drawn(items: Iterable[Item], count: int, most: int, seed: int) -> Iterator[Item]:
    """At most so many of `count` items, drawn at random by the seed alone, in their order."""
    if count <= most:
        yield from items
        return
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).choice(count, most, replace=False, shuffle=False)] = True
    yield from compress(items, chosen)


def digest(vocabulary: Vocabulary) -> str:
    """SHA-256 (hex) of all that decides how text becomes ids."""
    tree = json.dumps(vocabulary.to_json(), sort_keys=True)
    return hashlib.sha256(tree.encode("utf-8", "surrogatepass")).hexdigest()


def save(vocabulary: Vocabulary, path: str | Path) -> None:
    """Writes one JSON file, whatever the kind."""
    tree = {"format": _FORMAT, **vocabulary.to_json()}
    write_text(Path(path), json.dumps(tree) + "\n")


def load(path: str | Path) -> Vocabulary:
    """The vocabulary that `save` wrote.

    Raises:
      InputError: the file is missing, or is no vocabulary, or is damaged.
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
        raise InputError(f"{path} is a damaged vocabulary: copy the run folder anew") from error


def _from_json(tree: dict[str, Any]) -> Vocabulary:
    kind = tree["kind"]
    if kind == "bytes":
        return ByteVocabulary()
    if kind == "sentencepiece":
        vocabulary = SentencePieceVocabulary(base64.b64decode(tree["model"], validate=True))
        if vocabulary.size <= EOS or vocabulary.decode([UNK]).strip() != SPECIALS[UNK]:
            raise ValueError("special ids are not those of encdec.types")
        return vocabulary
    table = tuple(tree["table"])
    distinct = len(set(table)) == len(table)
    if kind not in ("chars", "words") or not distinct or not all(isinstance(t, str) for t in table):
        raise ValueError("no table of distinct tokens")
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
    if size is not None and size > FIRST + len(counts):
        raise too_large(size, FIRST + len(counts))
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return tuple(ranked if size is None else ranked[: size - FIRST])
