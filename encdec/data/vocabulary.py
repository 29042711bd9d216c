"""Text to token ids and back: characters, words, bytes or SentencePiece behind one interface."""

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import sentencepiece

from encdec.types import EOS, UNK, InputError

Kind = Literal["chars", "words", "bytes", "sentencepiece"]
Pieces = Literal["unigram", "bpe"]

SPECIALS = ("<pad>", "<s>", "</s>", "⁇")
"""Labels of PAD, BOS, EOS and UNK, in the order of their ids."""

_FIRST = len(SPECIALS)
_FORMAT = "encdec vocabulary 1"
_PIECES = 8000  # of SentencePiece, where no size is given


class Vocabulary(Protocol):
    """What the rest of the library knows of a vocabulary. Ids 0 to 3 are PAD, BOS, EOS, UNK."""

    @property
    def size(self) -> int:
        """Number of ids, the four special ones included."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text: no BOS or EOS is added, and what is unknown becomes UNK."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids: PAD, BOS and EOS leave no trace, UNK becomes ⁇."""

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One label an id, for plots: `</s>` for EOS, ▁ for a space."""

    def to_json(self) -> dict[str, Any]:
        """All that `load` needs to build this vocabulary again."""


@dataclass(frozen=True)
class TableVocabulary:
    """Characters or words (what white space separates), each with an id of its own."""

    kind: Literal["chars", "words"]
    table: tuple[str, ...]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: _FIRST + i for i, token in enumerate(self.table)}

    @property
    def size(self) -> int:
        return _FIRST + len(self.table)

    def encode(self, text: str) -> list[int]:
        ids = self._ids
        return [ids.get(token, UNK) for token in _split(self.kind, text)]

    def decode(self, ids: Iterable[int]) -> str:
        joint = "" if self.kind == "chars" else " "
        return joint.join(self._label(i) for i in ids if i >= UNK)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return ["▁" if label == " " else label for label in map(self._label, ids)]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "table": self.table}

    def _label(self, i: int) -> str:
        return SPECIALS[i] if i < _FIRST else self.table[i - _FIRST]


@dataclass(frozen=True)
class ByteVocabulary:
    """The bytes of UTF-8: byte b has the id 4 + b, and no text is unknown."""

    @property
    def size(self) -> int:
        return _FIRST + 256

    def encode(self, text: str) -> list[int]:
        return [_FIRST + byte for byte in text.encode("utf-8", "replace")]

    def decode(self, ids: Iterable[int]) -> str:
        unknown = SPECIALS[UNK].encode()
        parts = (unknown if i == UNK else bytes([i - _FIRST]) for i in ids if i >= UNK)
        return b"".join(parts).decode("utf-8", "replace")

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [SPECIALS[i] if i < _FIRST else _byte_label(i - _FIRST) for i in ids]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "bytes"}


@dataclass(frozen=True)
class SentencePieceVocabulary:
    """Subwords of SentencePiece (Kudo and Richardson 2018), held as its own proto."""

    proto: bytes

    @cached_property
    def _model(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.proto)

    @property
    def size(self) -> int:
        return self._model.get_piece_size()

    def encode(self, text: str) -> list[int]:
        return self._model.encode(_well_formed(text))

    def decode(self, ids: Iterable[int]) -> str:
        return self._model.decode([int(i) for i in ids if i >= UNK])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [SPECIALS[i] if i < _FIRST else self._model.id_to_piece(int(i)) for i in ids]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "sentencepiece", "model": base64.b64encode(self.proto).decode()}


def build(
    kind: Kind, texts: Iterable[str], size: int | None, pieces: Pieces = "unigram"
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
        if size not in (None, _FIRST + 256):
            raise InputError(f"vocabulary_size = {size} cannot be used: bytes have 260 tokens")
        return ByteVocabulary()
    if kind == "sentencepiece":
        return SentencePieceVocabulary(_train_sentencepiece(texts, size, pieces))
    return TableVocabulary(kind, _most_frequent(kind, texts, size))


def save(vocabulary: Vocabulary, path: str | Path) -> None:
    """Writes one JSON file, whatever the kind."""
    tree = {"format": _FORMAT, **vocabulary.to_json()}
    Path(path).write_text(json.dumps(tree) + "\n", encoding="utf-8")


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


def _well_formed(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()


def _most_frequent(kind: str, texts: Iterable[str], size: int | None) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_split(kind, text))
    if not counts:
        raise InputError(f"there is no text to take a vocabulary of {kind} from")
    if size is not None and size > _FIRST + len(counts):
        raise _too_large(size, _FIRST + len(counts))
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return tuple(ranked if size is None else ranked[: size - _FIRST])


def _train_sentencepiece(texts: Iterable[str], size: int | None, pieces: Pieces) -> bytes:
    proto = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_some_text(texts),
            model_writer=proto,
            model_type=pieces,
            vocab_size=_PIECES if size is None else size,
            hard_vocab_limit=size is not None,
            normalization_rule_name="identity",
            character_coverage=1.0,
            max_sentence_length=1 << 24,  # the default leaves out sentences above 4 KB, silently
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            unk_surface=SPECIALS[UNK],
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, size or _PIECES) from error
    return proto.getvalue()


def _some_text(texts: Iterable[str]) -> Iterator[str]:
    """The texts that are not empty; an InputError at the end if there was none."""
    empty = True
    for text in texts:
        if text.strip():
            empty = False
            yield _well_formed(text)
    if empty:
        raise InputError("there is no text to train sentencepiece on")


def _explain(error: RuntimeError, size: int) -> InputError:
    """SentencePiece's two complaints about a size, in the words of this library."""
    if most := re.search(r"value <= (\d+)", str(error)):
        return _too_large(size, int(most[1]))
    if least := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
        return InputError(
            f"vocabulary_size = {size} is too small: the text has {int(least[1]) - _FIRST} "
            f"different characters, so sentencepiece needs at least {least[1]} "
            "(bytes and chars have no such limit)"
        )
    return InputError(f"sentencepiece cannot train on this text: {error}")


def _too_large(size: int, most: int) -> InputError:
    return InputError(
        f"vocabulary_size = {size} is too large for this text: at most {most} can be used"
    )
