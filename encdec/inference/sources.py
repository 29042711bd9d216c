"""From texts and what belongs to each of them to the arrays that a search begins with."""

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np

from encdec.data.batches import round_length
from encdec.data.shortlist import Shortlist
from encdec.data.tokens import Tokens, tokens_of
from encdec.inference.arguments import given_integer
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
    if not isinstance(given, Sized) or len(given) != count:
        several = len(given) if isinstance(given, Sized) else f"a {type(given).__name__} as"
        raise InputError(f"there are {count} texts, but {several} example_ids: give one for each")
    numbers = [given_integer("an item of example_ids", one, least=-(2**64)) for one in given]
    return np.array([number & 0xFFFFFFFF for number in numbers], np.uint32)


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


def with_shortlist(
    shortlist: Shortlist, sources: Sequence[np.ndarray], sentences: Sentences
) -> Sentences:
    """The sentences of a batch with the tokens that may be chosen for them.

    What is demanded of a sentence is among them, whatever its source proposes.

    Args:
      shortlist: of the vocabularies.
      sources: the tokens of the first n sentences; the others are padding.
      sentences: of NumPy arrays, of B >= n sentences.
    """
    demanded: list[Any] = [sentences.prefix]
    if sentences.phrases is not None:
        demanded.append(sentences.phrases.following)
    rows = [np.concatenate([one[b].reshape(-1) for one in demanded]) for b in range(len(sources))]
    table: Any = shortlist.batch(sources, rows, len(sentences.max_lengths))
    return sentences._replace(shortlist=table)


def padded_rows(source: Tokens, rows: np.ndarray, size: int) -> Source:
    """The sources of chosen rows and their mask, padded to `size` rows."""
    return source.padded(rows, size, round_length(int(source.lengths()[rows].max())))
