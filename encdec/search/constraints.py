"""What users say about translations as text, as token ids and automata: forced prefixes, phrases
that must appear and texts that must not."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from encdec.config.search import SearchOptions
from encdec.data.batches import round_length
from encdec.data.vocabulary import Vocabulary
from encdec.files import shortened
from encdec.search.automata import Automaton
from encdec.search.phrase_texts import Phrase, PhraseReader, known_ids
from encdec.search.phrases import PhraseTable
from encdec.types import InputError


class TextError(InputError):
    """What is wanted of one of several translations cannot be.

    Attributes:
      index: which of the texts, counted from 0.
      problem: what is wrong with it.
    """

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"text {index}: {problem}")
        self.index, self.problem = index, problem


class TextConstraints(NamedTuple):
    """What a caller wants of the translation of each of n texts, beyond the search options.

    Attributes:
      prefixes: the text that each begins with; None for `options.prefix`.
      phrases: the phrases that each must contain; None for no phrases.
      bans: the texts that each must not contain, besides `options.ban`; None for no others.
      indices: which text each is, for errors; None if they are all.
    """

    prefixes: Sequence[str] | None = None
    phrases: Sequence[Sequence[Phrase]] | None = None
    bans: Sequence[Sequence[str]] | None = None
    indices: Sequence[int] | None = None

    def of(self, indices: Sequence[int], count: int) -> "TextConstraints":
        """Those of some of `count` texts.

        Raises:
          InputError: there are not as many as texts.
        """
        for name, one_each in self._asdict().items():
            if one_each is None:
                continue
            is_several = isinstance(one_each, Sized) and not isinstance(one_each, str | dict | set)
            if not is_several or len(one_each) != count:
                raise InputError(f"there are {count} texts: give as many {name}, one for each")

        def some(one_each: Any) -> Any:
            return None if one_each is None else [one_each[i] for i in indices]

        return TextConstraints(some(self.prefixes), some(self.phrases), some(self.bans), indices)

    @contextmanager
    def blame(self, row: int, given: object) -> Iterator[None]:
        """Errors within name the text of this row; not where all have the same: `given` is None."""
        try:
            yield
        except InputError as error:
            if given is None:
                raise
            index = row if self.indices is None else self.indices[row]
            raise TextError(index, str(error)) from error


NO_CONSTRAINTS = TextConstraints()


class Constraints(NamedTuple):
    """The constraints on the translations of n texts.

    Attributes:
      banned_ids: sequences of ids that no translation contains.
      banned: for each translation, the texts that it does not contain.
      phrases: for each translation, the phrases that it contains.
      prefix: int32 [n, P], the ids that each translation begins with, then -1.
      max_lengths: int32 [n], the most tokens that each may have.
    """

    banned_ids: list[list[int]]
    banned: PhraseTable
    phrases: PhraseTable
    prefix: np.ndarray
    max_lengths: np.ndarray


def constrain(
    options: SearchOptions,
    vocabulary: Vocabulary,
    max_lengths: np.ndarray,
    given: TextConstraints = NO_CONSTRAINTS,
) -> Constraints:
    """Turns constraints as text into ids and automata, and checks them against the length limits.

    Args:
      options: how to search.
      vocabulary: of the target.
      max_lengths: int32 [n], the most tokens that each translation may have.
      given: for each of the n translations.

    Raises:
      InputError: a text, or the minimum length, cannot be used, or they contradict each other; a
        TextError where it is one of `given`.
    """
    check_min_length(options, max_lengths)
    reader = PhraseReader(vocabulary)
    ids = banned_ids(options, vocabulary)
    banned: list[list[Automaton]] = []
    prefixes: list[list[int]] = []
    of_all = [reader.automaton("ban", text) for text in options.ban]
    for row, limit in enumerate(max_lengths):
        with given.blame(row, given.bans):
            more = _several("bans", given.bans[row]) if given.bans else ()
            banned.append(of_all + [reader.automaton("ban", text) for text in more])
        with given.blame(row, given.prefixes):
            prefix = options.prefix if given.prefixes is None else given.prefixes[row]
            most = int(limit) - options.force_end  # whose last token is the end
            prefixes.append(prefix_ids(prefix, ids, banned[row], most, vocabulary))
    if options.force_first:
        prefixes = [one or [*vocabulary.before] for one in prefixes]
    phrases: list[list[Automaton]] = [[] for _ in max_lengths]
    if given.phrases is not None and any(given.phrases):
        if options.sample:
            raise InputError("phrases cannot be used with sample: they need a beam search")
        for row, wanted in enumerate(given.phrases):
            left = int(max_lengths[row]) - len(prefixes[row]) - options.force_end
            with given.blame(row, wanted):
                phrases[row] = _required(wanted, ids, banned[row], left, reader)
    longest = max(map(len, prefixes), default=0)
    # A length of few, so that few programs are compiled; none where nothing is forced.
    table = prefix_table(prefixes, round_length(longest) if longest else 0)
    return Constraints(ids, PhraseTable(banned), PhraseTable(phrases), table, max_lengths)


def _required(
    phrases: Sequence[Phrase],
    banned_ids: Sequence[Sequence[int]],
    banned: Sequence[Automaton],
    left: int,
    reader: PhraseReader,
) -> list[Automaton]:
    """The phrases of one translation, each once and without alternatives that are banned.

    Args:
      phrases: as text.
      banned_ids, banned: what the translation must not contain.
      left: the most tokens that they may have together.
      reader: of the vocabulary.
    """
    found: dict[int, Automaton] = {}
    for phrase in _several("phrases", phrases):
        allowed = allowed_texts("phrases", phrase, banned_ids, banned, reader)
        if phrase and not allowed:
            raise InputError(
                f"phrases has {phrase!r}, which cannot be written without what is banned: leave it "
                "out, or ban less"
            )
        automaton = reader.automaton("phrases", allowed)
        found[id(automaton)] = automaton
    # Most hypotheses need fewer, but nothing is promised of tokens that phrases share.
    needed = sum(automaton.most for automaton in found.values())
    if found and needed > left:
        raise InputError(
            f"phrases = {[*phrases]!r} may need {needed} tokens, but there is room for {left}: "
            "give fewer or shorter ones, or a larger max_extra or max_ratio"
        )
    return [*found.values()]


def allowed_texts(
    name: str,
    phrase: Phrase,
    banned_ids: Sequence[Sequence[int]],
    banned: Sequence[Automaton],
    reader: PhraseReader,
) -> tuple[str, ...]:
    """The alternative texts of a phrase that can be written without what is banned.

    Args:
      name: what the phrase is, for errors.
      phrase: a text, or several.
      banned_ids, banned: what the translation must not contain.
      reader: of the vocabulary.

    Raises:
      InputError: a text has no tokens, or one that the vocabulary does not know.
    """
    given: Any = phrase
    is_one = isinstance(given, str) or not isinstance(given, Iterable)
    texts = (given,) if is_one else tuple(given)
    return tuple(
        text
        for text in texts
        if not any(
            _contains_banned(ids, banned_ids, banned, reader.vocabulary)
            for ids in reader.spelling(name, text)
        )
    )


def _several(name: str, texts: Sequence[Any]) -> Sequence[Any]:
    """The texts of one translation; raises InputError if they are a single text, or no texts."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        some = repr(texts) if isinstance(texts, str) else "..."
        raise InputError(f"{name} has {texts!r} for a text: give a list, [{some}]")
    return texts


def _contains_banned(
    ids: Sequence[int],
    banned_ids: Sequence[Sequence[int]],
    banned: Sequence[Automaton],
    vocabulary: Vocabulary,
) -> bool:
    """Whether ids contain a banned sequence of ids, or spell a banned text."""
    for phrase in banned_ids:
        if any([*ids[i : i + len(phrase)]] == [*phrase] for i in range(len(ids))):
            return True
    return any(text.reads(ids, vocabulary.surfaces) for text in banned)


def banned_ids(options: SearchOptions, vocabulary: Vocabulary) -> list[list[int]]:
    """The ids of each of `options.ban_ids`.

    Raises:
      InputError: an id is not of the vocabulary.
    """
    given = [ids.split() for ids in options.ban_ids]
    for ids in given:
        for one in ids:
            # Python reads no longer number.
            if len(one) > 4300 or int(one) >= vocabulary.size:
                raise InputError(
                    f"ban_ids has {shortened(one)}, but the target vocabulary has the ids 0 to "
                    f"{vocabulary.size - 1}"
                )
    return [[*map(int, ids)] for ids in given]


def prefix_ids(
    text: str,
    banned_ids: Sequence[Sequence[int]],
    banned: Sequence[Automaton],
    limit: int,
    vocabulary: Vocabulary,
) -> list[int]:
    """The ids of a prefix; those of "" are [].

    Args:
      text: the prefix.
      banned_ids, banned: what the translation must not contain.
      limit: the most tokens that it may have.
      vocabulary: of the target.

    Raises:
      InputError: the prefix has a token that the vocabulary does not know, contains what is banned,
        or is longer than the translation may be.
    """
    ids = [] if text == "" else known_ids("prefix", text, vocabulary)
    if _contains_banned(ids, banned_ids, banned, vocabulary):
        raise InputError(
            f"prefix = {text!r} contains what ban forbids: give another prefix, or ban less"
        )
    if len(ids) > limit:
        raise InputError(
            f"prefix = {text!r} has {len(ids)} tokens, but the translation may have at most "
            f"{limit}: give a shorter prefix, or a larger max_extra or max_ratio"
        )
    return ids


def prefix_table(prefixes: Sequence[Sequence[int]], columns: int) -> np.ndarray:
    """int32 [B, columns]: the tokens of each prefix, then -1."""
    table = np.full((len(prefixes), columns), -1, np.int32)
    for row, ids in zip(table, prefixes, strict=True):
        row[: len(ids)] = ids
    return table


def check_min_length(options: SearchOptions, max_lengths: np.ndarray) -> None:
    """Raises InputError if a translation must be longer than it may be.

    Where all have one limit, one token more than it means that none ends before it.

    Args:
      options: how to search.
      max_lengths: int [B], the most tokens of each translation.
    """
    limit = int(max_lengths.min(initial=np.iinfo(np.int32).max))  # one more would overflow int32
    if options.min_length > limit + (options.max_ratio == 0):
        raise InputError(
            f"min_length = {options.min_length} is more than the {limit} tokens that the "
            "translation of the shortest text may have: lower it, or give a larger max_extra or "
            "max_ratio"
        )
