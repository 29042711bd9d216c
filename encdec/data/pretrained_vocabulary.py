"""The tokenizer of a model that was trained elsewhere, as a vocabulary."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from encdec.config.checks import fits, nearest
from encdec.data.pretrained_pieces import Pieces, pieces_from_json
from encdec.data.sentencepiece_model import UNKNOWN_LABEL
from encdec.data.surfaces import Surfaces
from encdec.data.words import word_numbers
from encdec.types import InputError, SpecialIds

LanguagePlace = Literal["before", "default", "start", "end"]
_FEW = 12
"""Languages that an error lists in full."""


@dataclass(frozen=True)
class PretrainedVocabulary:
    """One side's tokenizer, with the tokens that the model wants around a text.

    `encode` gives `before`, the ids of the text, `after`. The start and the end token are not part
    of it, as in every vocabulary; the end token in `specials` is what is put last, for mBART-25
    the language of the source. Special tokens that are written out in a text, such as `</s>`, are
    read as tokens, as the hub library does.

    In decoded text all special tokens leave no trace. Unlike in other vocabularies that includes
    the unknown token, because the hub library skips it too. Ids without a piece, of which a padded
    embedding has some, leave none either.

    Attributes:
      pieces: turns bare text into ids and back.
      size: the rows of the model's embedding; the tokenizer may have fewer ids. A token whose id
        is not below it is encoded as unknown.
      specials: see `SpecialIds`.
      before, after: ids around those of the text.
      language_place: where the id of the language is: in `before`; in `before` unless a text
        begins with a language itself, as `>>fra<<` ("default"); instead of the start token; or
        instead of the end token. None where the tokenizer has no languages.
      language_ids: the id of each language's token, by the code of the language.
    """

    pieces: Pieces
    size: int
    specials: SpecialIds
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    language_place: LanguagePlace | None = None
    language_ids: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = [*self.specials, *self.before, *self.after, *self.language_ids.values()]
        if not all(fits(i, int) and 0 <= i < 2**31 for i in [self.size, *ids]):
            raise ValueError("ids are not integers from 0")
        if max(ids) >= self.size:
            raise ValueError(f"the id {max(ids)} is not below {self.size}, the number of ids")

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes of the languages that `with_language` accepts, in the order of their ids."""
        return tuple(sorted(self.language_ids, key=lambda code: self.language_ids[code]))

    @property
    def language(self) -> str | None:
        """The code of the language that is chosen; None where there is none."""
        places = {
            "start": (self.specials.start,),
            "end": (self.specials.end,),
            None: (),
        }
        chosen = places.get(self.language_place, self.before)
        return next((code for code, i in self.language_ids.items() if i in chosen), None)

    def with_language(self, code: str) -> "PretrainedVocabulary":
        """The same tokenizer for texts in another language; of Marian, for another target.

        Raises:
          InputError: the tokenizer does not know the language, or has none.
        """
        i = language_id(self.language_ids, code)
        if self.language_place == "start":
            return replace(self, specials=self.specials._replace(start=i))
        if self.language_place == "end":
            return replace(self, specials=self.specials._replace(end=i))
        return replace(self, before=(i,))

    def encode(self, text: str) -> list[int]:
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        size, unknown, after = self.size, self.specials.unknown, self.after
        return [
            [*self._before(text), *(i if i < size else unknown for i in ids), *after]
            for text, ids in zip(texts, self.pieces.encode_all(texts), strict=True)
        ]

    def decode(self, ids: Iterable[int]) -> str:
        silent = self._silent
        return self.pieces.decode([int(i) for i in ids if i not in silent])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._label(int(i)) for i in ids]

    def words(self, ids: Sequence[int], text: str) -> list[int]:
        around = {*self.specials[:3], *self.before, *self.after}
        labels = [None if i in around else self._label(int(i)) for i in ids]
        return word_numbers(labels, text)

    @cached_property
    def surfaces(self) -> Surfaces:
        return Surfaces(
            [b"" if i in self._silent else self.pieces.surface(i) for i in range(self.size)]
        )

    def sample_segmentation(
        self, ids: Sequence[int], alpha: float, longest: int, rng: np.random.Generator
    ) -> list[int]:
        return list(ids)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "pretrained",
            "pieces": self.pieces.to_json(),
            "size": self.size,
            "specials": list(self.specials),
            "before": list(self.before),
            "after": list(self.after),
            "language_place": self.language_place,
            "language_ids": dict(self.language_ids),
        }

    @staticmethod
    def from_json(tree: dict[str, Any]) -> "PretrainedVocabulary":
        """Builds the vocabulary again.

        Raises:
          Exception: the values are damaged; the libraries of tokenizers raise errors of many types.
        """
        size, place, languages = (tree[n] for n in ("size", "language_place", "language_ids"))
        specials, before, after = (tuple(tree[n]) for n in ("specials", "before", "after"))
        if len(specials) != len(SpecialIds._fields):
            raise ValueError("there are other special ids")
        if place is not None and place not in get_args(LanguagePlace):
            raise ValueError("the place of languages is none of those that there are")
        pieces = pieces_from_json(tree["pieces"])
        return PretrainedVocabulary(
            pieces, size, SpecialIds(*specials), before, after, place, languages
        )

    @property
    def _silent(self) -> set[int]:
        """Ids that leave no trace in a text, whatever their pieces."""
        pad, start, end, _ = self.specials
        return {pad, start, end, *self.before, *self.after, *self.language_ids.values()}

    def _before(self, text: str) -> tuple[int, ...]:
        names_one = self.language_place == "default" and text.startswith(">>") and "<<" in text
        return () if names_one else self.before

    def _label(self, i: int) -> str:
        label = self.pieces.label(i)
        return UNKNOWN_LABEL if label is None or i == self.specials.unknown else label


def with_languages(
    source: PretrainedVocabulary,
    target: PretrainedVocabulary,
    source_language: str | None,
    target_language: str | None,
) -> tuple[PretrainedVocabulary, PretrainedVocabulary]:
    """Both sides of a model for other languages; None leaves that of a side.

    Of Marian the source names the language to translate to.

    Raises:
      InputError: a language is not known, or that side has none.
    """
    of_source, of_target = source_language, target_language
    if source.language_place == "default":
        if of_source is not None:
            raise InputError(
                f"source_language = {of_source!r} cannot be used: the model knows languages to "
                "translate to only"
            )
        of_source, of_target = of_target, None
    return (
        source if of_source is None else source.with_language(of_source),
        target if of_target is None else target.with_language(of_target),
    )


def language_id(language_ids: Mapping[str, int], code: str) -> int:
    """The id of a language's token.

    Raises:
      InputError: there is none; the error names those that there are.
    """
    if isinstance(code, str) and code in language_ids:
        return language_ids[code]
    if not language_ids:
        raise InputError(f"the language {code!r} cannot be chosen: the tokenizer has no languages")
    known = sorted(language_ids)
    listed = ", ".join(known[:_FEW]) + (f" and {len(known) - _FEW} more" * (len(known) > _FEW))
    raise InputError(
        f"the tokenizer does not know the language {code!r}{nearest(code, known) or ':'} "
        f"it knows {listed}"
    )
