"""Word alignments of translations, from their attention.

A link i-j says that word j of the translation comes from word i of the source, both counted from 0:
Pharaoh's form, which fast_align and other aligners write too.
"""

from collections.abc import Sequence

import numpy as np

from encdec.config import ModelConfig
from encdec.inference.translation import Translation
from encdec.runs.run import Run
from encdec.types import InputError

Link = tuple[int, int]
"""A source word and a target word."""

_LITTLE = 0.1
"""Attention in all that is no sign of anything: c below."""


def align_translation(
    run: Run,
    translation: Translation,
    source: str,
    layer: int | None = None,
    head: int | None = None,
) -> list[Link]:
    """The word alignment of a translation.

    Words are what white space separates in the source and in the text of the translation.

    Args:
      run: the run whose vocabularies the tokens are from.
      translation: a translation with its attention; that of a blank text has no links.
      source: the text that was translated.
      layer, head: which attention maps, see `mean_of_maps`.

    Raises:
      InputError: the model has no attention, or no such map.
    """
    mean_of = chosen_maps(run.config.model, layer, head)
    if translation.attention is None:
        return []
    return align_words(
        translation.attention[mean_of].mean(0),
        run.src_vocabulary.words(translation.src_ids, source),
        run.tgt_vocabulary.words(translation.tgt_ids, translation.text),
    )


def chosen_maps(model: ModelConfig, layer: int | None, head: int | None) -> list[int]:
    """The indices of the attention maps whose mean aligns words.

    Args:
      model: the settings of the model.
      layer: counted from 1; None for the last two.
      head: counted from 1, of a given layer; None for all heads.

    The last layers tell most about words. Garg 2019 finds the last but one of six to be best;
    in smaller models it is the last: `experiments/alignments.py` measures each.

    Raises:
      InputError: the model has no attention, or no such layer or head.
    """
    layers, heads = model.attention_grid
    if not layers * heads:
        raise InputError("the model has no attention, so that words cannot be aligned")
    if layer is None and head is not None:
        raise InputError("head is given without layer: say of which layer, counted from 1")
    for name, number, count in (("layer", layer, layers), ("head", head, heads)):
        if number is not None and not 1 <= number <= count:
            raise InputError(f"{name} = {number} does not exist: the model has 1 to {count}")
    if layer is None:
        return [*range(max(layers - 2, 0) * heads, layers * heads)]
    first = (layer - 1) * heads
    return [*range(first, first + heads)] if head is None else [first + head - 1]


def align_words(
    attention: np.ndarray,
    src_words: Sequence[int],
    tgt_words: Sequence[int],
    tension: float = 0.0,
) -> list[Link]:
    """Links each target word to the source word whose attention it has most of.

    A_ji = sum over tokens s of source word i, mean over tokens t of target word j, of
    a_ts / (c + sum over all t of a_ts), times exp(-lambda |i / I - j / J|) (Dyer 2013, section 2).
    Word j is linked to the word i with the largest A_ji. A source token that all target tokens
    attend to, such as a full stop, has little for each; c = 0.1 keeps what none attends to from
    having much.

    Args:
      attention: float [T, S], the attention a_ts at the step that predicts target token t.
      src_words: the word of each source token, -1 for none.
      tgt_words: the word of each target token, -1 for none.
      tension: lambda, how much nearer words are preferred; 0 for languages of any order.

    Returns:
      The links in the order of target words, one for each word that has a token; none if no source
      token has a word.
    """
    source, target = np.asarray(src_words, int), np.asarray(tgt_words, int)
    count, length = source.max(initial=-1) + 1, target.max(initial=-1) + 1
    if not count:
        return []
    shares = attention / (_LITTLE + attention.sum(0))
    of_words = np.zeros((len(target), count))  # [T, source words]
    np.add.at(of_words.T, source[source >= 0], shares[:, source >= 0].T)
    places = (np.arange(count) + 0.5) / count

    def linked(word: int) -> int:
        near = np.exp(-tension * np.abs(places - (word + 0.5) / length))
        return int((of_words[target == word].mean(0) * near).argmax())

    return [(linked(word), word) for word in np.unique(target[target >= 0]).tolist()]


def pharaoh(links: Sequence[Link]) -> str:
    """Links as a line of text, such as `0-0 2-1`."""
    return " ".join(f"{i}-{j}" for i, j in links)
