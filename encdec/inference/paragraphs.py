"""Texts of several sentences: split, translated in one batch, and put together again."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from encdec.config.search import SearchOptions
from encdec.data.sentences import Paragraph, join_paragraph, split_paragraph
from encdec.inference.arguments import check_search, text_list
from encdec.inference.translation import Translation, blank_translation
from encdec.inference.translator import Translator
from encdec.search.constraints import TextError
from encdec.types import InputError

_LINES = 1 << 22
"""Numbers of lines that differ in what is drawn for their second sentence and the next line's."""

SentenceConstraints = Callable[[Sequence[str], Sequence[str]], dict[str, Any]]
"""(sentences, a name of each for messages) -> further arguments of `Translator.translate`."""


class TranslatedParagraph(NamedTuple):
    """A text and its translation.

    Attributes:
      whole: the translation of the text: scores are sums over the sentences, and their tokens
        follow each other, each with its end token; without attention. That of a blank text is "".
      source: the sentences of the text.
      sentences: their translations, one for each.
    """

    whole: Translation
    source: list[str]
    sentences: list[Translation]


def translate_paragraphs(
    translator: Translator,
    texts: Iterable[str],
    options: SearchOptions | None = None,
    *,
    first: int = 0,
    constraints: SentenceConstraints | None = None,
    **how: Any,
) -> list[TranslatedParagraph]:
    """Translates texts of several sentences each, all sentences together.

    A sentence that is longer than the model was trained for is split further, see
    `encdec.data.sentences.split_paragraph`.

    Args:
      translator: a translator; its settings name the languages.
      texts: the texts.
      options: how to search; as in `Translator.nbest`.
      first: the index of the first text in the whole input, where that is translated in parts: it
        decides what is drawn in sampling.
      constraints: gives `phrases` and `bans` for the sentences.
      how: further arguments of `Translator.translate`.

    Raises:
      InputError: as in `Translator.nbest`; a prefix is set, which would begin each sentence; or
        sentencex is not installed.
    """
    texts = text_list(texts)
    check_search(options)
    options = options or translator.run.config.search
    if options.prefix or how.get("prefixes") is not None:
        raise InputError("a prefix begins one sentence: it cannot be used with paragraphs")
    data = translator.run.config.data
    limit = min(member.run.config.data.max_source_length for member in translator.members)

    def fits(sentence: str) -> bool:
        return all(member.source_length(sentence) <= limit for member in translator.members)

    split = [split_paragraph(text, data.source_language, fits) for text in texts]
    numbers = [
        (first + line + place * _LINES)
        for line, paragraph in enumerate(split)
        for place in range(len(paragraph.sentences))
    ]
    sentences = [sentence for paragraph in split for sentence in paragraph.sentences]
    names = [
        f"line {first + line + 1}, sentence {place + 1}"
        for line, paragraph in enumerate(split)
        for place in range(len(paragraph.sentences))
    ]
    if constraints is not None:
        how |= constraints(sentences, names)
    try:
        translated = translator.translate(sentences, options, example_ids=numbers, **how)
    except TextError as error:
        raise InputError(f"{names[error.index]}: {error.problem}") from error
    translations = iter(translated)
    found = []
    for paragraph in split:
        own = [next(translations) for _ in paragraph.sentences]
        whole = _joined(paragraph, own, data.source_language, data.target_language)
        found.append(TranslatedParagraph(whole, paragraph.sentences, own))
    return found


def _joined(
    paragraph: Paragraph, sentences: list[Translation], source: str, to: str
) -> Translation:
    """One translation of those of a paragraph's sentences."""
    if not sentences:
        return blank_translation()
    return Translation(
        text=join_paragraph([one.text for one in sentences], paragraph.gaps, source, to),
        score=sum(one.score for one in sentences),
        log_prob=sum(one.log_prob for one in sentences),
        token_log_probs=[x for one in sentences for x in one.token_log_probs],
        src_tokens=[token for one in sentences for token in one.src_tokens],
        tgt_tokens=[token for one in sentences for token in one.tgt_tokens],
        src_ids=[i for one in sentences for i in one.src_ids],
        tgt_ids=[i for one in sentences for i in one.tgt_ids],
        is_cut=any(one.is_cut for one in sentences),
        attention=None,
    )
