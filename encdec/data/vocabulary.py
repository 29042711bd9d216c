"""Text to token ids and back: characters, words, bytes, SentencePiece or the tokenizer of a model
that was trained elsewhere, behind one interface.

The special ids (padding, start, end, unknown) are the vocabulary's own: `Vocabulary.specials`.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from encdec.config.checks import fits
from encdec.config.data import VocabularyKind
from encdec.data.pretrained_vocabulary import PretrainedVocabulary
from encdec.data.sentencepiece_model import (
    UNKNOWN_LABEL,
    SentencePieceType,
    SentencePieceVocabulary,
    too_large,
    train,
)
from encdec.data.simple_vocabularies import (
    FIRST,
    SPECIALS,
    ByteVocabulary,
    IdVocabulary,
    TableVocabulary,
    split,
)
from encdec.data.surfaces import Surfaces
from encdec.files import parse_json, write_text
from encdec.types import InputError, SpecialIds

_FORMAT = "encdec vocabulary 1"


class Vocabulary(Protocol):
    """All that the rest of the library uses of a vocabulary."""

    @property
    def size(self) -> int:
        """Number of ids, special ids included."""

    @property
    def specials(self) -> SpecialIds:
        """Which ids pad, start and end a sentence, and stand for unknown tokens."""

    @property
    def before(self) -> tuple[int, ...]:
        """The ids with which `encode` begins every text, such as the token of a language."""

    @property
    def after(self) -> tuple[int, ...]:
        """The ids with which `encode` ends every text."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without start and end; an unknown token gets the unknown id."""

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; one call for many texts can be faster."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids: pad, start and end leave no trace, the unknown id becomes ⁇."""

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """A label for each id, for plots: `</s>` for the end token, ▁ for a space."""

    def words(self, ids: Sequence[int], text: str) -> list[int]:
        """The word of the text that each token belongs to, counted from 0; -1 for none.

        Words are what white space separates. Special tokens, those of `before` and `after`, and
        tokens that are only a space belong to none.

        Args:
          ids: tokens, special ones among them.
          text: the text that `encode` made the ids of, or that `decode` made of them.
        """

    @property
    def surfaces(self) -> Surfaces:
        """What each id adds to a text."""

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


def build(
    kind: VocabularyKind,
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
        they allow. Or the kind cannot be built from texts.
    """
    if kind == "pretrained":
        raise InputError(
            "vocabulary = 'pretrained' comes with an imported model: begin from its run by "
            "init_from, or choose another kind"
        )
    if kind == "bytes":
        if size not in (None, FIRST + 256):
            raise InputError(f"vocabulary_size = {size} cannot be used: bytes have 260 tokens")
        return ByteVocabulary()
    if kind == "sentencepiece":
        return train(texts, size, model_type)
    return TableVocabulary(kind, _most_frequent(kind, texts, size))


def digest(vocabulary: Vocabulary) -> str:
    """SHA-256 (hex) of everything that determines how text becomes ids."""
    return _digest(vocabulary.to_json())


def save(vocabulary: Vocabulary, path: str | Path) -> None:
    """Writes a vocabulary of any kind as one JSON file.

    Its `kind` says how token ids follow from it. Ids 0 to 3 are padding, start, end and unknown.

      chars, words: `table` lists the tokens, and the token at index i (from 0) has the id 4 + i.
      bytes: the byte b has the id 4 + b.
      ids: an id is the number itself; `size` is the number of ids.
      sentencepiece: `model` is SentencePiece's own file in base64; it has the special ids too.
      pretrained: the tokenizer of the imported model; ids and special ids are those of that model.
    """
    tree = {"format": _FORMAT, **vocabulary.to_json()}
    write_text(Path(path), json.dumps(tree) + "\n")


def load(path: str | Path, expected: str | None = None) -> Vocabulary:
    """Reads the vocabulary that `save` wrote.

    Args:
      path: the file.
      expected: the `digest` of the vocabulary, if it is known. It is checked before the vocabulary
        is built, because SentencePiece 0.2.1 may end the process on a damaged model.

    Raises:
      InputError: the file is missing, damaged, not a vocabulary, or not the expected one.
    """
    try:
        tree = parse_json(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not a vocabulary that encdec saved") from error
    if not isinstance(tree, dict) or tree.get("format") != _FORMAT:
        raise InputError(f"{path} is not a vocabulary that encdec saved")
    del tree["format"]
    if expected is not None and _digest(tree) != expected:
        raise InputError(
            f"{path} is damaged or does not belong to this run, whose model was trained on other "
            "tokens: copy the file again from the original run folder"
        )
    try:
        return _from_json(tree)
    except Exception as error:  # libraries of tokenizers raise errors of many types
        raise InputError(f"{path} is a damaged vocabulary: copy the run folder again") from error


def _digest(tree: dict[str, Any]) -> str:
    text = json.dumps(tree, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _from_json(tree: dict[str, Any]) -> Vocabulary:
    kind = tree["kind"]
    if kind == "bytes":
        return ByteVocabulary()
    if kind == "ids":
        if not fits(tree["size"], int) or not FIRST < tree["size"] < 2**31:
            raise ValueError("the size is no number of ids")
        return IdVocabulary(tree["size"])
    if kind == "pretrained":
        return PretrainedVocabulary.from_json(tree)
    if kind == "sentencepiece":
        vocabulary = SentencePieceVocabulary(base64.b64decode(tree["model"], validate=True))
        vocabulary.tokens(range(vocabulary.size))  # a piece may be no text
        shown = vocabulary.decode([vocabulary.specials.unknown]).strip()
        if vocabulary.specials != SPECIALS or shown != UNKNOWN_LABEL:
            raise ValueError("the special ids are not those that `train` gives")
        return vocabulary
    table = tuple(tree["table"])
    distinct = len(set(table)) == len(table)
    if kind not in ("chars", "words") or not distinct or not all(isinstance(t, str) for t in table):
        raise ValueError("the table is not one of distinct tokens")
    return TableVocabulary(kind, table)


def _most_frequent(kind: str, texts: Iterable[str], size: int | None) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split(kind, text))
    if not counts:
        raise InputError(f"there is no text to take a vocabulary of {kind} from")
    if size is not None and size > FIRST + len(counts):
        raise too_large(size, FIRST + len(counts))
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return tuple(ranked if size is None else ranked[: size - FIRST])
