"""Options that say for each line what its translation begins with, must and must not contain."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdec.config.search import SearchOptions
from encdec.types import InputError

if TYPE_CHECKING:
    from encdec.data.terms import Term
    from encdec.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class ConstraintOptions:
    """Files of what belongs to each line."""

    prefixes: Path | None = None
    """File with a line for each source line: the text that its translation begins with; a blank
    line leaves it free."""
    terms: Path | None = None
    """TSV file of terminology: source term, tab, target term. The translation of a line that
    contains the source term contains the target term, both as words; "a|b" is satisfied by either.
    A source term in lower case is found in any case, another one only as it is written; of terms
    that overlap the longest counts, with those of --ban-terms."""
    ban_terms: Path | None = None
    """TSV file like that of --terms, whose target terms must not appear instead."""

    @property
    def paths(self) -> list[Path]:
        """The files that are given."""
        return [path for path in (self.prefixes, self.terms, self.ban_terms) if path]

    def open(
        self, source: Path | None, search: SearchOptions, vocabulary: "Vocabulary"
    ) -> "LineConstraints":
        """Reads the files.

        Args:
          source: the file of source lines; None for stdin.
          search: the search options.
          vocabulary: of the target.

        Raises:
          InputError: a file cannot be read or used.
        """
        if self.prefixes and search.prefix:
            raise InputError("--prefixes and --prefix say the same twice: give one of them")
        if self.terms and search.sample:
            raise InputError("--terms cannot be used with --sample: they need a beam search")
        return LineConstraints(self, source, search, vocabulary)


class LineConstraints:
    """What belongs to the lines of one input, which are asked for in their order."""

    def __init__(
        self,
        options: ConstraintOptions,
        source: Path | None,
        search: SearchOptions,
        vocabulary: "Vocabulary",
    ) -> None:
        from encdec.data.sources import stream_lines
        from encdec.data.terms import Terminology, read_terms
        from encdec.search.phrase_texts import PhraseReader

        self._options, self._source = options, source
        self._prefixes: Iterator[str] | None = None
        self._read = 0
        if options.prefixes:
            # A pipe can be read only once.
            if source is not None and source.is_file() and options.prefixes.is_file():
                counts = [sum(1 for _ in stream_lines(path)) for path in (source, options.prefixes)]
                if counts[0] != counts[1]:
                    raise _different(source, counts[0], options.prefixes, counts[1])
            self._prefixes = stream_lines(options.prefixes)
        terms = read_terms(options.terms) if options.terms else []
        if options.ban_terms:
            terms += read_terms(options.ban_terms, banned=True)
        self._terminology = Terminology(terms) if terms else None
        self._reader = PhraseReader(vocabulary)
        self._check(terms, search)

    def of_lines(self, lines: Sequence[str], first: int) -> dict[str, Any]:
        """Arguments of `Translator.nbest` for the next lines of the input.

        Args:
          lines: source lines.
          first: the number of the first one.

        Raises:
          InputError: the file of prefixes ends before the last of the lines.
        """
        constraints = self.of_sentences(lines, [f"line {first + i}" for i in range(len(lines))])
        if self._prefixes is not None:
            prefixes = [*itertools.islice(self._prefixes, len(lines))]
            self._read += len(prefixes)
            if len(prefixes) < len(lines):
                raise InputError(
                    f"{self._options.prefixes} has {self._read} lines, fewer than the input: give "
                    "a line for each source line, blank for any beginning"
                )
            constraints["prefixes"] = [text if text.strip() else "" for text in prefixes]
        return constraints

    def of_sentences(self, sentences: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
        """The same without prefixes, for sentences in any order.

        Args:
          sentences: source sentences.
          names: what messages call each of them.
        """
        if self._terminology is None:
            return {}
        phrases, bans = [], []
        for sentence, name in zip(sentences, names, strict=True):
            found = self._terminology.find(sentence)
            required = [term for term in found if not term.banned]
            phrases.append([term.targets for term in required])
            bans.append(self._bans([term for term in found if term.banned], required, name))
        return {"phrases": phrases, "bans": bans}

    def _bans(self, banned: "list[Term]", required: "list[Term]", name: str) -> list[str]:
        """The texts of banned terms; what another term of the line demands is not banned, and said.

        Args:
          banned, required: the terms of a line.
          name: of the line.
        """
        from encdec.search.constraints import allowed_texts

        texts: list[str] = []
        for ban in banned:
            automata = [self._reader.automaton("ban", text) for text in (*texts, *ban.targets)]
            for term in required:
                if not allowed_texts(term.place, term.targets, (), automata, self._reader):
                    print(
                        f"encdec: {name}: {term.place} demands what {ban.place} forbids: it is not "
                        "forbidden here",
                        file=sys.stderr,
                    )
                    break
            else:
                texts += ban.targets
        return texts

    def _check(self, terms: "Sequence[Term]", search: SearchOptions) -> None:
        """Raises InputError if a target cannot be written at all; the error names its line."""
        from encdec.search.constraints import allowed_texts, banned_ids

        ids = banned_ids(search, self._reader.vocabulary)
        banned = [self._reader.automaton("ban", text) for text in search.ban]
        for term in terms:
            name = f"{term.place}: the target term"
            never = (ids, banned) if not term.banned else ([], [])
            if not allowed_texts(name, term.targets, *never, self._reader):
                raise InputError(
                    f"{name} {'|'.join(term.targets)!r} cannot be written without what --ban or "
                    "--ban-ids forbid: leave one of them out"
                )

    def finish(self) -> None:
        """Raises InputError if prefixes are left when the input has ended."""
        if self._prefixes is not None:
            left = sum(1 for _ in self._prefixes)
            if left:
                name = self._source or Path("stdin")
                raise _different(name, self._read, self._options.prefixes, self._read + left)


@contextmanager
def naming_lines(first: int) -> Iterator[None]:
    """An error within that belongs to one of several texts names its line instead.

    Args:
      first: the number of the line of the first text.
    """
    from encdec.search.constraints import TextError

    try:
        yield
    except TextError as error:
        raise InputError(f"line {first + error.index}: {error.problem}") from error


def _different(source: Path, lines: int, prefixes: Path | None, others: int) -> InputError:
    return InputError(
        f"{source} has {lines} lines but {prefixes} has {others}: give a prefix for each source "
        "line, blank for any beginning"
    )
