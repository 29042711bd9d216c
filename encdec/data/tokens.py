"""Sentences as token ids: one flat array a side, with the place where each sentence begins."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from encdec.data.sources import Pairs
from encdec.data.vocabulary import Vocabulary
from encdec.types import EOS, PAD


@dataclass(frozen=True, eq=False)
class Tokens:
    """Sentences of one side, each its tokens and EOS.

    Attributes:
      flat: uint16 or int32 [offsets[-1]], all tokens in a row; may lie on disk.
      offsets: int64 [n + 1]; sentence i is flat[offsets[i]:offsets[i + 1]].
    """

    flat: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def lengths(self) -> np.ndarray:
        """Tokens of each sentence, EOS among them: int32 [n]."""
        return np.diff(self.offsets).astype(np.int32)

    def padded(self, indices: np.ndarray, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Chosen sentences as an array, a sentence a row.

        Args:
          indices: int [n], which sentences; none is longer than `length`.
          rows: of the result, at least n; those after the n-th are padding.
          length: columns of the result.

        Returns:
          int32 [rows, length], and a mask, bool [rows, length], False where it is padding.
        """
        starts = self.offsets[indices]
        columns = np.arange(length)
        mask = np.zeros((rows, length), bool)
        real = mask[: len(indices)]
        real[:] = columns < (self.offsets[indices + 1] - starts)[:, None]
        ids = np.full((rows, length), PAD, np.int32)
        ids[: len(indices)][real] = self.flat[(starts[:, None] + columns)[real]]
        return ids, mask


class Examples(NamedTuple):
    """Encoded pairs: sentence i of one side translates sentence i of the other."""

    src: Tokens
    tgt: Tokens

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Source tokens and predicted target tokens of each pair, with EOS: int32 [n] twice."""
        return self.src.lengths(), self.tgt.lengths()


def tokens_of(sentences: Iterable[Sequence[int]]) -> Tokens:
    """Tokens in memory (int32) from the ids of each sentence, to which EOS is added."""
    ended = [[*ids, EOS] for ids in sentences]
    offsets = np.cumsum([0, *map(len, ended)], dtype=np.int64)
    return Tokens(np.fromiter(chain.from_iterable(ended), np.int32, int(offsets[-1])), offsets)


def encode_pairs(pairs: Pairs, src_vocab: Vocabulary, tgt_vocab: Vocabulary) -> Examples:
    """Token ids of all pairs, in memory."""
    return Examples(
        tokens_of(src_vocab.encode_all(pairs.src)), tokens_of(tgt_vocab.encode_all(pairs.tgt))
    )
