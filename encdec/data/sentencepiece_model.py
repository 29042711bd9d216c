"""Subwords by SentencePiece: training, text to ids and back, other ways to cut the same text."""

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

from encdec.data.bpe_dropout import merge, uniform
from encdec.types import InputError, SpecialIds

SentencePieceType = Literal["unigram", "bpe"]

UNKNOWN_LABEL = "⁇"
"""How an unknown token is shown, in text too."""

_SIZE = 8000  # where none is given
_SEGMENTATIONS = 64  # l in Kudo 2018
_DRAWS = 8  # of a sentence, until one fits: then it stays as it was encoded
_MOST_CHARACTERS = 40_000_000  # of training text: for each, SentencePiece takes 20 bytes of memory


@dataclass(frozen=True)
class SentencePieceVocabulary:
    """Subwords of SentencePiece (Kudo and Richardson 2018), held as its own proto."""

    proto: bytes

    @cached_property
    def _model(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.proto)

    @cached_property
    def _log_probs(self) -> np.ndarray:
        """Log-probability of each piece of a unigram model, nats."""
        return np.array([self._model.get_score(i) for i in range(self.size)])

    @cached_property
    def _is_unigram(self) -> bool:
        """Byte pairs have no probabilities, so no second best way to cut a text."""
        try:
            return bool(self._model.nbest_encode("", nbest_size=2))
        except RuntimeError:  # sentencepiece before 0.2.2 answers with nothing instead
            return False

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {self._model.id_to_piece(i): i for i in range(self.size) if i not in self.specials}

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """The order of merges: byte pairs come before all single characters, in their order."""
        return {piece: i for piece, i in self._ids.items() if len(piece) > 1}

    @property
    def size(self) -> int:
        return self._model.get_piece_size()

    @cached_property
    def specials(self) -> SpecialIds:
        model = self._model
        return SpecialIds(model.pad_id(), model.bos_id(), model.eos_id(), model.unk_id())

    def encode(self, text: str) -> list[int]:
        return self._model.encode(_well_formed(text))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return self._model.encode([_well_formed(text) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        pad, start, end, _ = self.specials
        return self._model.decode([int(i) for i in ids if i not in (pad, start, end)])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        unknown = self.specials.unknown
        return [UNKNOWN_LABEL if i == unknown else self._model.id_to_piece(int(i)) for i in ids]

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        if self.specials.unknown in ids:
            return list(ids)
        draw = self._by_probability if self._is_unigram else self._by_dropout
        return draw(list(ids), alpha, longest, rng)

    def _by_probability(
        self, ids: list[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        """Kudo 2018, section 3.3: of the likeliest segmentations x that are no longer than allowed
        one is drawn with probability P(x)^alpha / sum of P(x')^alpha."""
        cuts, log_probs = self.segmentations(ids)
        fit = np.array([len(cut) <= longest for cut in cuts])
        sums = np.where(fit, np.exp(alpha * (log_probs - log_probs[0])), 0).cumsum()
        return cuts[int(np.searchsorted(sums / sums[-1], rng.random(), "right"))]

    def segmentations(self, ids: list[int]) -> tuple[list[list[int]], np.ndarray]:
        """The 64 likeliest ways of a unigram model to cut the text of `encode`d ids, these first.

        With their log-probabilities, float64 [n], nats.
        """
        found = self._model.nbest_encode(self._model.decode(ids), nbest_size=_SEGMENTATIONS)
        if not ids or found[0] != ids:  # what has no way back to its own text is left alone
            return [ids], np.zeros(1)
        starts = [0, *accumulate(map(len, found[:-1]))]
        return found, np.add.reduceat(self._log_probs[[*chain(*found)]], starts)

    def _by_dropout(
        self, ids: list[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        """Byte pairs without some merges; drawn again, a few times, where it is too long."""
        words = re.findall("▁?[^▁]+|▁", "".join(map(self._model.id_to_piece, ids)))
        chances = uniform(rng)
        for _ in range(_DRAWS):
            parts = chain(*(merge(word, self._ranks, alpha, chances) for word in words))
            cut = [self._ids[part] for part in parts]
            if len(cut) <= longest:
                return cut
        return ids

    def to_json(self) -> dict[str, Any]:
        return {"kind": "sentencepiece", "model": base64.b64encode(self.proto).decode()}


def train(
    texts: Iterable[str], size: int | None, pieces: SentencePieceType
) -> SentencePieceVocabulary:
    """A model of some texts.

    Args:
      texts: sentences; read once. Of more than 40 million characters every second, fourth, ...
        sentence is taken.
      size: pieces, special ids included; None means 8,000, or what a smaller text allows.
      pieces: a unigram language model, or byte pairs.

    Raises:
      InputError: no text, or a size that it does not allow, with one that it does.
    """
    proto, specials = io.BytesIO(), SpecialIds()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_thinned(_some_text(texts), _MOST_CHARACTERS)),
            model_writer=proto,
            model_type=pieces,
            vocab_size=_SIZE if size is None else size,
            hard_vocab_limit=size is not None,
            normalization_rule_name="identity",
            character_coverage=1.0,
            max_sentence_length=1 << 24,  # the default leaves out sentences above 4 KB, silently
            pad_id=specials.pad,
            bos_id=specials.start,
            eos_id=specials.end,
            unk_id=specials.unknown,
            unk_surface=UNKNOWN_LABEL,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, size or _SIZE) from error
    return SentencePieceVocabulary(proto.getvalue())


def too_large(size: int, most: int) -> InputError:
    """What is said of a vocabulary larger than its text allows."""
    return InputError(
        f"vocabulary_size = {size} is too large for this text: at most {most} can be used"
    )


def _well_formed(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()


def _some_text(texts: Iterable[str]) -> Iterator[str]:
    """The texts that are not empty; an InputError at the end if there was none."""
    empty = True
    for text in texts:
        if text.strip():
            empty = False
            yield _well_formed(text)
    if empty:
        raise InputError("there is no text to train sentencepiece on")


def _thinned(texts: Iterable[str], most: int) -> list[str]:
    """Every 1st, 2nd, 4th, ... text: the first such step that leaves no more characters."""
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
    """SentencePiece's two complaints about a size, in the words of this library."""
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
