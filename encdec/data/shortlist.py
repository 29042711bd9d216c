"""The target tokens that each source token proposes: a vocabulary shortlist.

Its file is a lexical table, as Marian and others read it: text, gzipped if its name ends in `.gz`,
with a target token, a source token and a probability in each line, separated by white space:

    ▁hund ▁dog 0.81
    ▁ein NULL 0.09

Tokens are written as the vocabularies label them. The 100 likeliest tokens of the source `NULL` may
be in the translation of any sentence. Lines of tokens that a vocabulary does not have are not used.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encdec.data.lexicon import Lexicon
from encdec.data.sources import stream_lines
from encdec.data.vocabulary import Vocabulary
from encdec.files import shortened
from encdec.types import InputError

NULL = "NULL"
"""The source token of what every sentence proposes."""
BEST = 20
"""How many tokens a source token proposes by default."""
_FREQUENT = 100
"""How many tokens every sentence proposes."""
_LEAST = 1e-4
"""The least probability that is written."""
_FEWEST = 64
"""Tokens of the smallest shortlist, so that a beam has enough to choose from."""


@dataclass(frozen=True, eq=False)
class Shortlist:
    """Target tokens by source token, for two vocabularies.

    Attributes:
      special: int32 [n], the special tokens of the target, ascending.
      proposed: int32, the tokens that source tokens propose, one after the other.
      offsets: int64 [source vocabulary + 2]; source token i proposes proposed[offsets[i]:
        offsets[i + 1]], and the last entry is what every sentence proposes.
      vocabulary: the number of target tokens.
      best: the most that a source token proposes, the last entry aside.
    """

    special: np.ndarray
    proposed: np.ndarray
    offsets: np.ndarray
    vocabulary: int
    best: int

    def batch(
        self, sources: Sequence[np.ndarray], more: Sequence[np.ndarray], rows: int
    ) -> np.ndarray:
        """The shortlists of a batch, int32 [rows, K]: special tokens, then others, then -1.

        K is one of few numbers, so that few programs are compiled.

        Args:
          sources: the source tokens of each sentence.
          more: further target tokens of each sentence; negative ones are none.
          rows: as many or more; the others get the special tokens.
        """
        each = [self._tokens(*both) for both in zip(sources, more, strict=True)]
        longest = max(map(len, each), default=0) + len(self.special)
        table = np.full((rows, self._rounded(longest)), -1, np.int32)
        table[:, : len(self.special)] = self.special
        for row, tokens in zip(table, each, strict=False):
            row[len(self.special) :][: len(tokens)] = tokens
        return table

    def most_tokens(self, length: int) -> int:
        """About the most tokens in the shortlist of a source of so many tokens."""
        return self._rounded(len(self.special) + _FREQUENT + length * (self.best + 1))

    def _tokens(self, source: np.ndarray, more: np.ndarray) -> np.ndarray:
        """The tokens of a sentence that are not special, ascending."""
        of = (*np.unique(source), len(self.offsets) - 2)
        parts = [self.proposed[self.offsets[i] : self.offsets[i + 1]] for i in of]
        tokens = np.unique(np.concatenate([*parts, more[more >= 0]]))
        return tokens[~np.isin(tokens, self.special)]

    def _rounded(self, count: int) -> int:
        """The next of 64, 96, 128, 192, 256, ..., at most the vocabulary."""
        power = max(_FEWEST, 1 << (count - 1).bit_length())
        return min(power * 3 // 4 if count <= power * 3 // 4 >= _FEWEST else power, self.vocabulary)


def read_shortlist(path: str | Path, src: Vocabulary, tgt: Vocabulary, best: int) -> Shortlist:
    """Reads a lexical table.

    Args:
      path: the file.
      src, tgt: the vocabularies.
      best: for each source token the likeliest so many are taken; not so for `NULL`.

    Raises:
      InputError: it cannot be read, a line is not one of such a table, or most of its tokens are
        not in the vocabularies.
    """
    if best < 1:
        raise InputError(f"shortlist_best = {best} cannot be used: it must be at least 1")
    sides = _numbers(src), _numbers(tgt)
    sides[0].setdefault(NULL, []).append(src.size)
    # What is written alike on both sides, such as a name or a number, is proposed as well.
    found = [
        (i, -math.inf, j)
        for label, ids in sides[0].items()
        for i in ids
        for j in sides[1].get(label, [])
    ]
    lines, unknown, example = 0, 0, ""
    for place, target, source, probability in _lines(path):
        lines += 1
        numbers = sides[0].get(source, []), sides[1].get(target, [])
        if not all(numbers):
            unknown, example = unknown + 1, example or f"{target} {source} ({place})"
        found += [(i, -probability, j) for i in numbers[0] for j in numbers[1]]
    if 2 * unknown >= lines:
        raise InputError(
            f"{path}: {unknown} of {lines} lines have tokens that the vocabularies of the run do "
            f"not have{f', such as {example}' if example else ''}: make a table for this run with "
            "`encdec shortlist`"
        )
    columns = np.array(found).reshape(-1, 3)
    columns = columns[np.lexsort(columns.T[::-1])]  # by source token, the likeliest first
    tokens = columns[:, 0].astype(np.int64)
    rank = np.arange(len(tokens)) - np.searchsorted(tokens, tokens)
    is_best = rank < np.where(tokens < src.size, best, _FREQUENT)
    offsets = np.searchsorted(tokens[is_best], np.arange(src.size + 2))
    special = np.array(sorted({*tgt.specials}), np.int32)
    proposed = columns[is_best, 2].astype(np.int32)
    return Shortlist(special, proposed, offsets, tgt.size, best)


def table_lines(lexicon: Lexicon, src: Vocabulary, tgt: Vocabulary, best: int) -> Iterator[str]:
    """The lines of a table with the likeliest translations of each source token.

    What every sentence proposes are the most frequent target tokens, with how frequent they are.

    Args:
      lexicon: learnt from tokens of the vocabularies.
      src, tgt: the vocabularies.
      best: the most target tokens for a source token, `NULL` aside.
    """
    source, target, probability = lexicon.source, lexicon.target, lexicon.probability
    is_token = source < src.size
    frequent = np.argsort(-lexicon.counts, kind="stable")[: _FREQUENT + len(tgt.specials)]
    source = np.concatenate([np.full(len(frequent), src.size), source[is_token]])
    target = np.concatenate([frequent, target[is_token]])
    frequency = lexicon.counts[frequent] / lexicon.counts.sum()
    probability = np.concatenate([frequency, probability[is_token]])
    order = np.lexsort((-probability, source))
    labels = [*src.tokens(range(src.size)), NULL], tgt.tokens(range(tgt.size))
    ids: tuple[set[int], ...] = tuple({*side.specials} for side in (src, tgt))
    last, count = -1, 0
    for i, j, p in zip(source[order], target[order], probability[order], strict=True):
        last, count = i, count + 1 if i == last else 1
        texts = labels[1][j], labels[0][i]
        is_special = i in ids[0] or j in ids[1]
        # A label with white space cannot be written.
        most = best if i < src.size else _FREQUENT
        if count <= most and p >= _LEAST and not is_special and all(map(_is_word, texts)):
            yield f"{' '.join(texts)} {p:.6f}\n"


def _is_word(label: str) -> bool:
    return label.split() == [label]


def _lines(path: str | Path) -> Iterator[tuple[str, str, str, float]]:
    """The place of each line, its target, its source, and the probability."""
    for number, line in enumerate(stream_lines(path), 1):
        cells = line.replace("\t", " ").strip(" ").split(" ")
        if cells == [""]:
            continue
        place = f"{path}, line {number}"
        try:
            target, source, probability = cells
            value = float(probability)
            if not 0 <= value < math.inf:
                raise ValueError
        except ValueError:
            raise InputError(
                f"{place} is {shortened(line)}: give a target token, a source token and a "
                "probability, with a space between"
            ) from None
        yield place, target, source, value


def _numbers(vocabulary: Vocabulary) -> dict[str, list[int]]:
    """The ids of each label; special ones are left out."""
    numbers: dict[str, list[int]] = {}
    for i, label in enumerate(vocabulary.tokens(range(vocabulary.size))):
        if i not in vocabulary.specials:
            numbers.setdefault(label, []).append(i)
    return numbers
