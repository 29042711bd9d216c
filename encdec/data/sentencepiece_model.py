"""A vocabulary of SentencePiece subwords: training, encoding, random segmentation."""

import base64
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, Literal

import numpy as np
import sentencepiece

from encdec.data.bpe_dropout import segment, uniform
from encdec.data.surfaces import Surfaces
from encdec.data.words import word_numbers
from encdec.types import InputError, SpecialIds

SentencePieceType = Literal["unigram", "bpe"]

UNKNOWN_LABEL = "⁇"
"""How an unknown token is shown, in text too."""

_DEFAULT_SIZE = 8000
_NBEST = 64
"""Segmentations that subword regularization chooses from, l in Kudo 2018."""
_ATTEMPTS = 8
"""Random segmentations of a sentence by BPE-dropout, until one is short enough."""
_LONGEST_WORD = 10_000
"""Characters of a word that SentencePiece is trained on; 0.2.1 ends the process above 65,535."""
_MAX_CHARACTERS = 40_000_000
"""Characters of training text: SentencePiece takes 20 bytes of memory for each."""


@dataclass(frozen=True)
class SentencePieceVocabulary:
    """Subwords of SentencePiece (Kudo and Richardson 2018).

    Attributes:
      proto: the serialized model; as plain bytes it can be compared, copied and saved.
    """

    proto: bytes

    @cached_property
    def _model(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.proto)

    @cached_property
    def _log_probs(self) -> np.ndarray:
        """Log-probability of each subword of a unigram model, nats, float64 [size]."""
        return np.array([self._model.get_score(i) for i in range(self.size)])

    @cached_property
    def _is_unigram(self) -> bool:
        """Whether the model is unigram: only that can list the n best segmentations of a text."""
        try:
            return bool(self._model.nbest_encode("", nbest_size=2))
        except RuntimeError:  # raised from 0.2.2 on; earlier versions return an empty list
            return False

    @cached_property
    def _ids(self) -> dict[str, int]:
        """The id of each subword."""
        return {self._model.id_to_piece(i): i for i in range(self.size) if i not in self.specials}

    @cached_property
    def _labels(self) -> list[str]:
        """How each token is shown."""
        labels = [self._model.id_to_piece(i) for i in range(self.size)]
        labels[self.specials.unknown] = UNKNOWN_LABEL
        return labels

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """The rank of each merge of a bpe model, by the subword that it makes.

        SentencePiece numbers these subwords in the order of their merges, so ids serve as ranks.
        """
        return {subword: i for subword, i in self._ids.items() if len(subword) > 1}

    @property
    def size(self) -> int:
        return self._model.get_piece_size()

    @cached_property
    def specials(self) -> SpecialIds:
        model = self._model
        return SpecialIds(model.pad_id(), model.bos_id(), model.eos_id(), model.unk_id())

    before = after = ()

    def encode(self, text: str) -> list[int]:
        return self._model.encode(well_formed(text))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return self._model.encode([well_formed(text) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        pad, start, end, _ = self.specials
        return self._model.decode([int(i) for i in ids if i not in (pad, start, end)])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        labels = self._labels
        return [labels[i] for i in ids]

    def words(self, ids: Sequence[int], text: str) -> list[int]:
        pad, start, end, _ = self.specials
        labels = self.tokens(ids)
        silent = (pad, start, end)
        return word_numbers(
            [None if i in silent else l for i, l in zip(ids, labels, strict=True)], text
        )

    @cached_property
    def surfaces(self) -> Surfaces:
        silent = {*self.specials} - {self.specials.unknown}
        labels = self.tokens(range(self.size))
        return Surfaces(
            [b"" if i in silent else piece_surface(label) for i, label in enumerate(labels)]
        )

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        if self.specials.unknown in ids:  # its text is lost, so it cannot be split again
            return list(ids)
        sample = self._sample_unigram if self._is_unigram else self._sample_bpe
        return sample(list(ids), alpha, longest, rng)

    def _sample_unigram(
        self, ids: list[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        """Subword regularization (Kudo 2018, section 3.3).

        Of the n best segmentations x that are short enough, one is sampled with probability
        P(x)^alpha / sum over x' of P(x')^alpha.
        """
        nbest, log_probs = self.segmentations(ids)
        fits = np.array([len(segmentation) <= longest for segmentation in nbest])
        # Relative to the best, so that exp does not underflow; then by inverting the CDF.
        cdf = np.where(fits, np.exp(alpha * (log_probs - log_probs[0])), 0).cumsum()
        return nbest[int(np.searchsorted(cdf / cdf[-1], rng.random(), "right"))]

    def segmentations(self, ids: list[int]) -> tuple[list[list[int]], np.ndarray]:
        """Returns the 64 likeliest segmentations of a text by a unigram model.

        Args:
          ids: the text as `encode` gives it.

        Returns:
          The segmentations, `ids` first, and their log-probabilities, float64 [n], nats.
        """
        nbest = self._model.nbest_encode(self._model.decode(ids), nbest_size=_NBEST)
        if not ids or nbest[0] != ids:  # decoding does not give back the text of these ids
            return [ids], np.zeros(1)
        # The log-probability of a segmentation is the sum over its subwords; all at once.
        starts = [0, *accumulate(map(len, nbest[:-1]))]
        return nbest, np.add.reduceat(self._log_probs[[*chain(*nbest)]], starts)

    def _sample_bpe(
        self, ids: list[int], dropout: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        """BPE-dropout of each word; returns `ids` where several attempts are all too long."""
        # SentencePiece writes a space as ▁ before a word; no merge crosses the start of a word.
        words = re.findall("▁?[^▁]+|▁", "".join(map(self._model.id_to_piece, ids)))
        uniforms = uniform(rng)
        for _ in range(_ATTEMPTS):
            subwords = chain(*(segment(word, self._ranks, dropout, uniforms) for word in words))
            segmentation = [self._ids[subword] for subword in subwords]
            if len(segmentation) <= longest:
                return segmentation
        return ids

    def to_json(self) -> dict[str, Any]:
        return {"kind": "sentencepiece", "model": base64.b64encode(self.proto).decode()}


def train(
    texts: Iterable[str], size: int | None, model_type: SentencePieceType
) -> SentencePieceVocabulary:
    """Trains a SentencePiece model.

    Args:
      texts: sentences, read once. Of more than 40 million characters, every second (fourth, ...)
        sentence is used.
      size: number of ids, the special ones included; None means 8,000, or fewer if the text has
        not as many subwords.
      model_type: a unigram language model, or byte pairs.

    Raises:
      InputError: there is no text, or it does not allow the size; the error names one that it does.
    """
    proto, specials = io.BytesIO(), SpecialIds()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_thinned(_nonblank(texts), _MAX_CHARACTERS)),
            model_writer=proto,
            model_type=model_type,
            vocab_size=_DEFAULT_SIZE if size is None else size,
            hard_vocab_limit=size is not None,
            normalization_rule_name="identity",
            character_coverage=1.0,
            max_sentence_length=1 << 24,  # the default drops sentences above 4 KB in silence
            pad_id=specials.pad,
            bos_id=specials.start,
            eos_id=specials.end,
            unk_id=specials.unknown,
            unk_surface=UNKNOWN_LABEL,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, size or _DEFAULT_SIZE) from error
    return SentencePieceVocabulary(proto.getvalue())


def piece_surface(piece: str) -> bytes:
    """What a piece of SentencePiece adds to a text: <0xE4> is a byte, ▁ a space."""
    if re.fullmatch("<0x[0-9A-F]{2}>", piece):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode("utf-8", "replace")


def too_large(size: int, most: int) -> InputError:
    """The error of a vocabulary larger than its text allows."""
    return InputError(
        f"vocabulary_size = {size} is too large for this text: at most {most} can be used"
    )


def well_formed(text: str) -> str:
    """Replaces lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def _nonblank(texts: Iterable[str]) -> Iterator[str]:
    """Yields the texts that are not blank; raises InputError at the end if there was none."""
    empty = True
    for text in texts:
        if text.strip():
            empty = False
            yield _with_short_words(well_formed(text))
    if empty:
        raise InputError("there is no text to train sentencepiece on")


def _with_short_words(text: str) -> str:
    """The text with spaces in words of more than 10,000 characters."""
    if len(text) <= _LONGEST_WORD:
        return text
    return re.sub(f"([^ ]{{{_LONGEST_WORD}}})(?=[^ ])", r"\1 ", text)


def _thinned(texts: Iterable[str], most: int) -> list[str]:
    """Returns every text, or every 2nd, 4th, ..., such that there are at most so many characters.

    No more than that is ever in memory: whenever the texts are too many, every second is dropped.
    """
    kept: list[str] = []
    step, characters = 1, 0
    for number, text in enumerate(texts):
        if number % step == 0:
            kept.append(text)
            characters += len(text)
        while characters > most and len(kept) > 1:
            kept, step = kept[::2], 2 * step
            characters = sum(map(len, kept))
    return kept


def _explain(error: RuntimeError, size: int) -> InputError:
    """The error of SentencePiece as one that says which vocabulary size would do."""
    if most := re.search(r"value <= (\d+)", str(error)):
        return too_large(size, int(most[1]))
    if least := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
        characters = int(least[1]) - len(SpecialIds._fields)
        return InputError(
            f"vocabulary_size = {size} is too small: the text has {characters} "
            f"different characters, so sentencepiece needs at least {least[1]} "
            "(bytes and chars have no such limit)"
        )
    return InputError(f"sentencepiece cannot train on this text: {error}")
