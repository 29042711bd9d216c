"""Phrases that a person wants or does not want in translations: from text to automata."""

from collections.abc import Sequence

from encdec.data.vocabulary import Vocabulary
from encdec.search.automata import Automaton, Spelling, automaton
from encdec.types import InputError

Phrase = str | Sequence[str]
"""A text, or several of which one is enough."""


def known_ids(name: str, text: str, vocabulary: Vocabulary) -> list[int]:
    """The ids of a text, with what the vocabulary puts before it and without what follows it.

    Args:
      name: what the text is, for errors.
      text: any.
      vocabulary: of the target.

    Raises:
      InputError: the text has no tokens, or one that the vocabulary does not know.
    """
    if not isinstance(text, str):
        raise InputError(f"{name} = {text!r} is not a text")
    ids = vocabulary.encode(text)
    ids = ids[: len(ids) - len(vocabulary.after)]
    if len(ids) == len(vocabulary.before):
        raise InputError(f"{name} = {text!r} has no tokens: give a text that has some")
    if vocabulary.specials.unknown in ids:
        raise InputError(
            f"{name} = {text!r} has a token that the target vocabulary does not know: give text "
            "that the model can write"
        )
    return ids


class PhraseReader:
    """Reads phrases for one target vocabulary, each only once.

    Args:
      vocabulary: of the target.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._automata: dict[Phrase, Automaton] = {}

    def automaton(self, name: str, phrase: str | tuple[str, ...]) -> Automaton:
        """The automaton that finds a text, or one of several.

        Args:
          name: what the phrase is, for errors.
          phrase: the text, or the texts.

        Raises:
          InputError: a text has no tokens, or one that the vocabulary does not know; or there is
            none.
        """
        if not isinstance(phrase, str | tuple):
            raise InputError(f"{name} = {phrase!r} is not a text")
        if phrase not in self._automata:
            texts = phrase if isinstance(phrase, tuple) else (phrase,)
            if not texts:
                raise InputError(f"{name} has a phrase without a text: give at least one")
            spellings = dict.fromkeys(self.spelling(name, text) for text in texts)
            self._automata[phrase] = automaton(tuple(spellings), self.vocabulary.surfaces)
        return self._automata[phrase]

    def spelling(self, name: str, text: str) -> Spelling:
        """The tokens of a text at the beginning of a translation and in the middle.

        Args, raises: as in `known_ids`.
        """
        vocabulary, surfaces = self.vocabulary, self.vocabulary.surfaces
        bare = len(vocabulary.before)
        first = tuple(known_ids(name, text, vocabulary)[bare:])
        after_a_word = vocabulary.encode(f" {text}")
        middle = tuple(after_a_word[bare : len(after_a_word) - len(vocabulary.after)])
        written = surfaces.text(first)
        if not written.strip():
            raise InputError(f"{name} = {text!r} has no tokens: give a text that has some")
        # A vocabulary may have no token for a space, or make too many of it.
        if surfaces.text(middle).removeprefix(b" ") != written.removeprefix(b" "):
            middle = first
        return Spelling(first, middle)
