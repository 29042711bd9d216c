"""Translation of text with markup, which comes out as it is, where the words around it are."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from encdec.config.search import SearchOptions
from encdec.data.markup import Removed, keep_patterns, remove_markup
from encdec.data.markup_placement import restore_markup
from encdec.data.vocabulary import Vocabulary
from encdec.data.word_spans import word_spans
from encdec.data.words import SPACE, renumber
from encdec.inference.alignment import Link, align_words, chosen_maps
from encdec.inference.arguments import text_list
from encdec.inference.translation import Translation
from encdec.inference.translator import Translator
from encdec.runs.run import Run

_TENSION = 4.0
"""How much nearer words are preferred, see `align_words`."""


def translate_markup(
    translator: Translator,
    texts: Iterable[str],
    count: int = 1,
    options: SearchOptions | None = None,
    *,
    keep: Sequence[str] = (),
    tags: bool = True,
    **how: Any,
) -> list[list[Translation]]:
    """Translates texts without their markup, and puts it into the translations.

    Args:
      translator: a translator.
      texts: source sentences with markup.
      count, options, how: as in `Translator.nbest`.
      keep: regular expressions of what is kept, too.
      tags: whether `<…>` and `{…}` are markup.

    Returns:
      For each text up to `count` translations, best first: `text` has the markup; tokens, scores
      and attention are of the text without.

    Raises:
      InputError: a pattern of `keep` cannot be used; or as in `Translator.nbest`.
    """
    patterns: list[re.Pattern[str]] = keep_patterns(keep)
    removed = [remove_markup(text, patterns, tags=tags) for text in text_list(texts)]
    plain = [one.text for one in removed]
    found = translator.nbest(plain, count, options, **{**how, "alignments": True})
    return [
        [with_markup(translator.run, one, translation) for translation in translations]
        for one, translations in zip(removed, found, strict=True)
    ]


def with_markup(run: Run, removed: Removed, translation: Translation) -> Translation:
    """A translation of a text without its markup, with the markup in `text`.

    Args:
      run: the run whose vocabularies the tokens are from.
      removed: the text and its markup.
      translation: with its attention; that of a model without attention gets its markup where it
        is in the source, as a fraction of all words.
    """
    if not removed.pieces:
        return translation
    links = word_links(run, translation, removed.text)
    return replace(translation, text=restore_markup(removed, translation.text, links))


def word_links(run: Run, translation: Translation, source: str) -> list[Link]:
    """Links between the words of a text and of its translation, as `word_spans` counts them.

    Markup needs an alignment that holds for weak models too, so nearer words are preferred.
    """
    words, others = (
        [text[a:b] for a, b in word_spans(text)] for text in (source, translation.text)
    )
    if translation.attention is None or not translation.attention.size:
        count, total = len(words), 2 * len(others)
        return [((2 * j + 1) * count // total, j) for j in range(len(others)) if count]
    return align_words(
        translation.attention[chosen_maps(run.config.model, None, None)].mean(0),
        _token_words(run.src_vocabulary, translation.src_ids, source, words),
        _token_words(run.tgt_vocabulary, translation.tgt_ids, translation.text, others),
        _TENSION,
    )


def _token_words(
    vocabulary: Vocabulary, ids: Sequence[int], text: str, words: Sequence[str]
) -> list[int]:
    """The one of `words` that each token of a text belongs to; -1 for none."""
    belongs = [word >= 0 for word in vocabulary.words(ids, text)]
    labels = [label.replace(SPACE, "") for label in vocabulary.tokens(ids)]
    written = [label if some else "" for label, some in zip(labels, belongs, strict=True)]
    numbers = [n if label else -1 for n, label in enumerate(written)]
    return renumber(numbers, written, words)
