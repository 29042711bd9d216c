"""From texts and what belongs to each of them to the arrays that a search begins with."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from encdec.data.batches import round_length
from encdec.data.tokens import Tokens, tokens_of
from encdec.inference.decoding import Source
from encdec.runs.run import Run
from encdec.search.constraints import Constraints
from encdec.search.methods import Sentences
from encdec.types import InputError


def encode_sources(run: Run, texts: Sequence[str], max_length: int | None) -> Tokens:
    """Returns the source tokens of texts, cut after `max_length` tokens, with the end token.

    What the vocabulary puts after a text stays there when the text is cut.

    Args:
      run: its source vocabulary makes the tokens.
      texts: source sentences.
      max_length: the most tokens of each, without the end token; None cuts nothing.

    Raises:
      InputError: a text is longer than the model has positions for.
    """
    vocabulary = run.src_vocabulary
    ids, longest = vocabulary.encode_all(texts), run.config.model.longest_sentence
    if max_length is not None:
        after = [*vocabulary.after]
        ids = [
            one if len(one) <= max_length else one[: max_length - len(after)] + after for one in ids
        ]
    for text, one in zip(texts, ids, strict=True):
        if longest is not None and len(one) >= longest:
            raise InputError(
                f"a source of {len(one)} tokens, {text[:40]!r}..., is too long: the model has "
                f"{longest} learned positions, and the end token needs one; shorten it, or cut "
                f"it with max_source_length = {longest - 1} (--too-long cut)"
            )
    return tokens_of(ids, vocabulary.specials)


def example_numbers(given: Sequence[int] | None, count: int) -> np.ndarray:
    """The numbers of texts, uint32 [count]; by default their indices."""
    if given is None:
        return np.arange(count, dtype=np.uint32)
    if len(given) != count:
        raise InputError(
            f"there are {count} texts, but {len(given)} example_ids: give one for each"
        )
    return np.array([number & 0xFFFFFFFF for number in given], np.uint32)


def sentences_of(
    constraints: Constraints, example_ids: np.ndarray, rows: np.ndarray, size: int
) -> Sentences:
    """What the texts `rows`, int [n], bring to the search, padded to `size` rows."""
    missing = [(0, size - len(rows)), (0, 0)]
    arrays: Any = (
        np.pad(constraints.max_lengths[rows], missing[:1]),
        np.pad(example_ids[rows], missing[:1]),
        np.pad(constraints.prefix[rows], missing),
        constraints.banned.batch(rows, size),
        constraints.phrases.batch(rows, size),
    )
    return Sentences(*arrays)


def padded_rows(source: Tokens, rows: np.ndarray, size: int) -> Source:
    """The sources of chosen rows and their mask, padded to `size` rows."""
    return source.padded(rows, size, round_length(int(source.lengths()[rows].max())))
