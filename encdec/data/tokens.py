"""Sentences as token ids: for each side one flat array, and the offset of each sentence in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from encdec.data.sources import Pairs
from encdec.data.vocabulary import Vocabulary
from encdec.types import SpecialIds


@dataclass(frozen=True, eq=False)
class Tokens:
    """Sentences of one side, each its token ids and the end token.

    Attributes:
      flat: uint16 or int32 [offsets[-1]], the sentences one after the other; may lie on disk.
      offsets: int64 [n + 1]; sentence i is flat[offsets[i]:offsets[i + 1]].
      specials: the special ids of the vocabulary.
    """

    flat: np.ndarray
    offsets: np.ndarray
    specials: SpecialIds

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def lengths(self) -> np.ndarray:
        """Tokens of each sentence, the end token included: int32 [n]."""
        return np.diff(self.offsets).astype(np.int32)

    def padded(self, indices: np.ndarray, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Chosen sentences as a padded array, one per row.

        Args:
          indices: int [n], the sentences; none may be longer than `length`.
          rows: the rows of the result, at least n; those after the n-th are padding.
          length: the columns of the result.

        Returns:
          int32 [rows, length], and a mask, bool [rows, length], False where it is padding.
        """
        starts = self.offsets[indices]
        columns = np.arange(length)
        mask = np.zeros((rows, length), bool)
        real = mask[: len(indices)]
        real[:] = columns < (self.offsets[indices + 1] - starts)[:, None]
        ids = np.full((rows, length), self.specials.pad, np.int32)
        ids[: len(indices)][real] = self.flat[(starts[:, None] + columns)[real]]
        return ids, mask


class Examples(NamedTuple):
    """Encoded sentence pairs: sentence i of `tgt` is the translation of sentence i of `src`."""

    src: Tokens
    tgt: Tokens

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Source tokens and target tokens of each pair, end tokens included: int32 [n] each."""
        return self.src.lengths(), self.tgt.lengths()


def tokens_of(sentences: Iterable[Sequence[int]], specials: SpecialIds) -> Tokens:
    """Encoded sentences as Tokens in memory (int32).

    Args:
      sentences: the token ids of each, to which the end token is added.
      specials: the special ids of their vocabulary.
    """
    with_ends = [[*ids, specials.end] for ids in sentences]
    offsets = np.cumsum([0, *map(len, with_ends)], dtype=np.int64)
    flat = np.fromiter(chain.from_iterable(with_ends), np.int32, int(offsets[-1]))
    return Tokens(flat, offsets, specials)


def encode_pairs(pairs: Pairs, src_vocab: Vocabulary, tgt_vocab: Vocabulary) -> Examples:
    """Token ids of all pairs, in memory."""
    return Examples(
        tokens_of(src_vocab.encode_all(pairs.src), src_vocab.specials),
        tokens_of(tgt_vocab.encode_all(pairs.tgt), tgt_vocab.specials),
    )
