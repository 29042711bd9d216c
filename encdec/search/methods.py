"""`SearchOptions` on their way into a compiled search.

`split` is the one place that takes the options apart: `StaticOptions` decide which program is
compiled, `ArrayOptions` are arguments of that program. `parts` puts them to work.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from encdec.config.search import SearchOptions
from encdec.ops.seeds import key_from_words, seed_words
from encdec.search.beam import beam_parts
from encdec.search.candidates import Required
from encdec.search.diverse import diverse_parts
from encdec.search.finished import Stop
from encdec.search.interface import Processor
from encdec.search.loop import InitCache, Search
from encdec.search.phrases import Automata, WordEdges
from encdec.search.processors import BannedTexts, ForcedEnd, ForcedPrefix, from_options
from encdec.search.sampling import greedy_parts, sample_parts
from encdec.search.shortlist import (
    edges_of,
    found_ids,
    numbers,
    renumbered_automata,
    renumbered_rule,
    renumbered_step,
    special_numbers,
)
from encdec.search.types import LengthPenalty
from encdec.types import Array, DecodeStep, Memory, SpecialIds


class StaticOptions(NamedTuple):
    """What the compiled program depends on; hashable.

    Attributes:
      method: which search.
      beam: W, hypotheses of each sentence, or draws.
      beam_groups: G, of diverse beam search; 1 for one beam.
      max_len: T, the largest limit of tokens that a sentence can have.
      with_attention: whether attention is returned.
      specials: ids of the target vocabulary.
      banned: ids that no hypothesis holds.
      length_penalty_kind, stop, force_end: as in `SearchOptions`.
      vocabulary: V; only shortlists need it.
    """

    method: Literal["greedy", "beam", "sample"]
    beam: int
    beam_groups: int
    max_len: int
    with_attention: bool
    specials: SpecialIds
    banned: tuple[int, ...]
    length_penalty_kind: Literal["wu", "mean"]
    stop: Stop
    force_end: bool
    vocabulary: int = 0


class ArrayOptions(NamedTuple):
    """What can change without compiling again; a pytree, the same on all devices.

    Attributes:
      length_penalty, diversity_penalty: float32 [].
      seed: uint32 [2], see `encdec.ops.seeds`.
      processors: in the order in which they act. Which ones they are is part of the tree's
        structure, so another list is another program.
      edges: where tokens begin and end words; None without phrases and banned texts.
    """

    length_penalty: Array
    diversity_penalty: Array
    seed: Array
    processors: tuple[Processor, ...]
    edges: WordEdges | None


class Sentences(NamedTuple):
    """What each sentence of a batch brings to the search.

    Attributes:
      max_lengths: int32 [B], the most tokens that it may have, the end token included.
      example_ids: uint32 [B]: with the seed they decide what is drawn, in whatever batch.
      prefix: int32 [B, P], the tokens that it begins with, then -1; P = 0 forces none.
      banned: the texts that it must not contain; None where no sentence has any.
      phrases: those that it must contain; None where no sentence has any. They fit its limit.
      shortlist: int32 [B, K], the ids that its tokens are chosen from: special ones, then others,
        then -1. Among them are the tokens of `prefix`, and the `following` ones of `phrases`. None
        where they are chosen from all.
    """

    max_lengths: Array
    example_ids: Array
    prefix: Array
    banned: Automata | None = None
    phrases: Automata | None = None
    shortlist: Array | None = None


def split(
    options: SearchOptions,
    specials: SpecialIds,
    *,
    max_len: int,
    edges: WordEdges | None = None,
    with_attention: bool = False,
    banned: Sequence[Sequence[int]] = (),
    processors: Sequence[Processor] = (),
    vocabulary: int = 0,
) -> tuple[StaticOptions, ArrayOptions]:
    """The options as a program and its arguments.

    `min_length` and the penalties are arguments. `max_ratio`, `max_extra`, `prefix`, `ban` and
    `force_first` are already in `max_len` and in `Sentences`.

    Args:
      options: how to search.
      specials: of the target vocabulary.
      max_len: the largest limit of tokens that a sentence of the batch can have.
      edges: of the target vocabulary; None without phrases and banned texts.
      with_attention: whether attention is returned.
      banned: the ids of each of `options.ban_ids`.
      processors: the caller's own.
      vocabulary: V; only shortlists need it.
    """
    never = {specials.pad, specials.start} - {specials.end} if options.ban_special else set()
    method: Literal["greedy", "beam"] = "greedy" if options.beam == 1 else "beam"
    static = StaticOptions(
        "sample" if options.sample else method,
        options.beam,
        options.beam_groups,
        max_len,
        with_attention,
        specials,
        tuple(sorted(never)),
        options.length_penalty_kind,
        options.stop,
        options.force_end,
        vocabulary,
    )
    arrays: Any = (
        np.float32(options.length_penalty),
        np.float32(options.diversity_penalty),
        seed_words(options.seed),
        from_options(options, specials, banned, processors),
        edges,
    )
    return static, ArrayOptions(*arrays)


def parts(
    step: DecodeStep,
    memory: Memory,
    init_cache: InitCache,
    sentences: Sentences,
    arrays: ArrayOptions,
    static: StaticOptions,
) -> Search:
    """The search that the options describe.

    Args:
      step: the model; where sentences have shortlists, its logits are of the K tokens there.
      memory: of B sentences.
      init_cache: makes the cache of `static.beam` hypotheses each, with no token yet.
      sentences, arrays, static: see above.
    """
    if sentences.shortlist is None:
        return _parts(step, memory, init_cache, sentences, arrays, static)
    step = renumbered_step(step, sentences.shortlist)
    pad = static.specials.pad
    renumbered = _renumbered(sentences, arrays, static)
    return found_ids(_parts(step, memory, init_cache, *renumbered), sentences.shortlist, pad)


def _renumbered(
    sentences: Sentences, arrays: ArrayOptions, static: StaticOptions
) -> tuple[Sentences, ArrayOptions, StaticOptions]:
    """What sentences and options say, in the numbers of the shortlists."""
    shortlist, ids = sentences.shortlist, sorted({*static.specials})
    assert shortlist is not None
    specials = special_numbers(static.specials)
    rules = (
        renumbered_rule(rule, shortlist, specials.end, static.vocabulary)
        for rule in arrays.processors
    )
    return (
        sentences._replace(
            prefix=numbers(shortlist, sentences.prefix),
            banned=renumbered_automata(sentences.banned, shortlist),
            phrases=renumbered_automata(sentences.phrases, shortlist),
        ),
        arrays._replace(processors=tuple(rules), edges=edges_of(arrays.edges, shortlist)),
        static._replace(specials=specials, banned=tuple(map(ids.index, static.banned))),
    )


def _parts(
    step: DecodeStep,
    memory: Memory,
    init_cache: InitCache,
    sentences: Sentences,
    arrays: ArrayOptions,
    static: StaticOptions,
) -> Search:
    """As `parts`, where tokens are what the model's logits are of."""
    processors = arrays.processors
    if sentences.banned is not None:
        assert arrays.edges is not None
        processors = (BannedTexts(sentences.banned, arrays.edges), *processors)
    if sentences.prefix.shape[1]:  # what is forced has the last word
        processors = (*processors, ForcedPrefix(sentences.prefix))
    if static.force_end:
        processors = (*processors, ForcedEnd(sentences.max_lengths, np.int32(static.specials.end)))
    common: dict[str, Any] = {
        "max_len": static.max_len,
        "specials": static.specials,
        "banned": static.banned,
        "penalty": LengthPenalty(arrays.length_penalty, static.length_penalty_kind),
        "processors": processors,
        "with_attention": static.with_attention,
    }
    limits = sentences.max_lengths
    required = None
    if sentences.phrases is not None:
        assert arrays.edges is not None
        required = Required(sentences.phrases, arrays.edges, int(static.force_end))
    if static.method == "greedy" and required is None:
        return greedy_parts(step, memory, init_cache, limits, **common)
    if static.method != "sample":
        # A greedy search ends with its first hypothesis, whatever would stop a beam.
        stop = "first" if static.method == "greedy" else static.stop
        common |= {"beams": static.beam, "stop": stop, "required": required}
        if static.beam_groups == 1:
            return beam_parts(step, memory, init_cache, limits, **common)
        penalty = arrays.diversity_penalty
        return diverse_parts(
            *(step, memory, init_cache, limits),
            groups=static.beam_groups,
            diversity=penalty,
            **common,
        )
    key = key_from_words(arrays.seed)
    keys = jax.vmap(lambda example: jax.random.fold_in(key, example))(sentences.example_ids)
    common |= {"samples": static.beam, "shortlist": sentences.shortlist}
    common["vocabulary"] = static.vocabulary
    return sample_parts(step, memory, init_cache, limits, keys, **common)
