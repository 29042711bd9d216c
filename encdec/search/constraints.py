"""What users say about translations as text, as token ids: banned phrases and forced prefixes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from encdec.config.search import SearchOptions
from encdec.data.batches import round_length
from encdec.data.vocabulary import Vocabulary
from encdec.types import InputError


class Constraints(NamedTuple):
    """The constraints on the translations of n texts.

    Attributes:
      banned: the ids of each banned text.
      prefix: int32 [n, P], the ids that each translation begins with, then -1.
      max_lengths: int32 [n], the most tokens that each may have.
    """

    banned: list[list[int]]
    prefix: np.ndarray
    max_lengths: np.ndarray


def constrain(
    options: SearchOptions,
    vocabulary: Vocabulary,
    max_lengths: np.ndarray,
    prefixes: Sequence[str] | None = None,
) -> Constraints:
    """Turns what the options say in text into ids, and checks it against the length limits.

    Args:
      options: how to search.
      vocabulary: of the target.
      max_lengths: int32 [n], the most tokens that each translation may have.
      prefixes: the text that each translation begins with; None for `options.prefix`.

    Raises:
      InputError: a banned text, a prefix or the minimum length cannot be used.
    """
    check_min_length(options, max_lengths)
    banned = banned_ids(options, vocabulary)
    texts = [options.prefix] * len(max_lengths) if prefixes is None else prefixes
    ids = prefix_ids(texts, banned, max_lengths, vocabulary)
    if options.force_first:
        ids = [one or [*vocabulary.before] for one in ids]
    longest = max(map(len, ids), default=0)
    # A length of few, so that few programs are compiled; none where nothing is forced.
    columns = round_length(longest) if longest else 0
    return Constraints(banned, prefix_table(ids, columns), max_lengths)


def banned_ids(options: SearchOptions, vocabulary: Vocabulary) -> list[list[int]]:
    """The ids of each of `options.ban` and `options.ban_ids`.

    Args:
      options: how to search.
      vocabulary: of the target.

    Raises:
      InputError: a text has no tokens, or one that the vocabulary does not know; an id is not of
        the vocabulary.
    """
    given = [[*map(int, ids.split())] for ids in options.ban_ids]
    for ids in given:
        if max(ids) >= vocabulary.size:
            raise InputError(
                f"ban_ids has {max(ids)}, but the target vocabulary has the ids 0 to "
                f"{vocabulary.size - 1}"
            )
    first = len(vocabulary.before)
    return [_known("ban", text, vocabulary)[first:] for text in options.ban] + given


def prefix_ids(
    prefixes: Sequence[str],
    banned: Sequence[Sequence[int]],
    max_lengths: Sequence[int] | np.ndarray,
    vocabulary: Vocabulary,
) -> list[list[int]]:
    """The ids of the prefix of each sentence; those of "" are [].

    Args:
      prefixes: text, one for each sentence.
      banned: from `banned_ids`.
      max_lengths: the most tokens that each translation may have.
      vocabulary: as in `banned_ids`.

    Raises:
      InputError: a prefix has a token that the vocabulary does not know, contains what is banned,
        or is longer than its sentence's translation may be.
    """
    known = {text: _known("prefix", text, vocabulary) for text in {*prefixes} - {""}}
    for text, ids in known.items():
        for phrase in banned:
            if any(ids[i : i + len(phrase)] == [*phrase] for i in range(len(ids))):
                raise InputError(
                    f"prefix = {text!r} contains what ban forbids: give another prefix, or ban less"
                )
    result = [known.get(text, []) for text in prefixes]
    for text, ids, limit in zip(prefixes, result, max_lengths, strict=True):
        if len(ids) > limit:
            raise InputError(
                f"prefix = {text!r} has {len(ids)} tokens, but the translation may have at most "
                f"{limit}: give a shorter prefix, or a larger max_extra or max_ratio"
            )
    return result


def prefix_table(prefixes: Sequence[Sequence[int]], columns: int) -> np.ndarray:
    """int32 [B, columns]: the tokens of each prefix, then -1."""
    table = np.full((len(prefixes), columns), -1, np.int32)
    for row, ids in zip(table, prefixes, strict=True):
        row[: len(ids)] = ids
    return table


def check_min_length(options: SearchOptions, max_lengths: np.ndarray) -> None:
    """Raises InputError if a translation must be longer than it may be: max_lengths int [B]."""
    limit = max_lengths.min(initial=np.iinfo(np.int32).max)
    if options.min_length > limit:
        raise InputError(
            f"min_length = {options.min_length} is more than the {limit} tokens that the "
            "translation of the shortest text may have: lower it, or give a larger max_extra or "
            "max_ratio"
        )


def _known(option: str, text: str, vocabulary: Vocabulary) -> list[int]:
    """The ids of a text, with what the vocabulary puts before it and without what follows it."""
    ids = vocabulary.encode(text)
    ids = ids[: len(ids) - len(vocabulary.after)]
    if len(ids) == len(vocabulary.before):
        raise InputError(f"{option} = {text!r} has no tokens: give a text that has some")
    if vocabulary.specials.unknown in ids:
        raise InputError(
            f"{option} = {text!r} has a token that the target vocabulary does not know: give text "
            "that the model can write"
        )
    return ids


def prefixes_of(
    texts: Sequence[str], real: Sequence[int], prefixes: Sequence[str] | None
) -> list[str] | None:
    """The prefixes of the texts that are not blank, whose indices are `real`."""
    if prefixes is None:
        return None
    if isinstance(prefixes, str) or len(prefixes) != len(texts):
        raise InputError(
            f"there are {len(texts)} texts: give one prefix for each, or options.prefix for all"
        )
    return [prefixes[i] for i in real]
