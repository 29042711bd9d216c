"""The search of many texts, in batches on the devices."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from encdec.config.search import SearchOptions
from encdec.data.batches import inference_batches, round_length
from encdec.data.shortlist import Shortlist
from encdec.data.tokens import Tokens
from encdec.inference.beam_memory import SentenceBytes, check_sentence, hypothesis_bytes
from encdec.inference.decoding import (
    Model,
    Shared,
    Source,
    cache_bytes,
    encoding_bytes,
    search_length,
)
from encdec.inference.limits import target_limits
from encdec.inference.segments import Watch, find
from encdec.inference.shortlisted import output_width
from encdec.inference.sources import padded_rows, sentences_of, with_shortlist
from encdec.models.interface import EncoderDecoder, precision_of
from encdec.parallel import devices, sharding
from encdec.parallel.layout import Layout
from encdec.parallel.process_memory import forget_programs
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.search.constraints import Constraints
from encdec.search.interface import Processor
from encdec.search.methods import Sentences, split
from encdec.search.phrases import word_edges
from encdec.search.types import SearchResult
from encdec.types import Array, Params

_CACHE_BYTES = 1 << 31
"""The most bytes on a device for the caches of all batches at work, if every translation reached
its limit."""
_CPU_TOKENS = 4096
"""The most source tokens of a batch on a CPU: more are not faster, and share the cores worse."""
_MOST_WORKERS = 8
"""Batches at work on a CPU, which share its memory."""

See = Callable[[int, np.ndarray], None]
"""Gets the index of a text and the tokens of its likeliest hypothesis so far, int32 [T], padding
after them."""


@dataclass(frozen=True)
class How:
    """How texts are searched; see `Translator.nbest`.

    Attributes:
      options, processors, alignments, max_batch_tokens: as there.
      constraints: what the options and the texts themselves demand.
    """

    options: SearchOptions
    constraints: Constraints
    processors: Sequence[Processor]
    alignments: bool
    max_batch_tokens: int


@dataclass(frozen=True)
class BatchSearch:
    """Models that decode together, and the devices that they are on.

    Attributes:
      runs: of each model; the first provides the target vocabulary and the limits.
      model: the models.
      params: of each model, sharded over the devices.
      weights: float32 [number of models], see `Shared`.
      layout: the devices.
      memory: bytes of a device that all batches at work may need together, see `free_memory`.
      shortlist: the target tokens of each source token; None for no shortlists.
    """

    runs: tuple[Run, ...]
    model: Model
    params: tuple[Params, ...]
    weights: np.ndarray
    layout: Layout
    memory: int
    shortlist: Shortlist | None = None

    def search(
        self, sources: Sequence[Tokens], numbers: np.ndarray, how: How, see: See | None
    ) -> Iterator[tuple[np.ndarray, SearchResult]]:
        """Searches n texts in batches, several of them at a time on a CPU.

        Args:
          sources: the tokens of the texts for each model.
          numbers: uint32 [n], see `example_numbers`.
          how: see there.
          see: is called every few tokens, maybe in another thread.

        Yields:
          The indices of the texts of a batch, int [rows], and what was found for them.
        """
        forget_programs()
        longest = round_length(int(sources[0].lengths().max(initial=1)))
        workers = self._workers(longest, how)

        def find_batch(
            batch: tuple[np.ndarray, np.ndarray, np.ndarray],
        ) -> tuple[np.ndarray, SearchResult]:
            rows, src, src_mask = batch
            others = [padded_rows(tokens, rows, len(src)) for tokens in sources[1:]]
            padded: tuple[Source, ...] = ((src, src_mask), *others)

            def see_rows(places: np.ndarray, tokens: np.ndarray) -> None:
                assert see
                for place, ids in zip(places, tokens, strict=True):
                    see(int(rows[place]), ids)

            sentences = sentences_of(how.constraints, numbers, rows, len(src))
            if self.shortlist is not None:
                source = [sources[0][row] for row in rows]
                sentences = with_shortlist(self.shortlist, source, sentences)
            return rows, self._find(padded, sentences, how, see_rows if see else None)

        batches = self._batches(sources[0], how, workers)
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(find_batch, batches) if workers > 1 else map(find_batch, batches)

    def check(self, source: Tokens, options: SearchOptions, *, alignments: bool) -> None:
        """Raises InputError if the search of the longest text alone does not fit on a device.

        Args:
          source: the tokens of the texts, for the first model.
          options, alignments: see `How`.
        """
        if len(source):
            longest = int(source.lengths().max())
            each = self.sentence_bytes(round_length(longest), options, alignments=alignments)
            check_sentence(each._replace(source_length=longest), options.beam, self.memory)

    def sentence_bytes(
        self, length: int, options: SearchOptions, *, alignments: bool
    ) -> SentenceBytes:
        """About the bytes of a device that a sentence needs in a batch.

        Args:
          length: the tokens of the longest source of the batch, rounded up.
          options, alignments: see `How`.
        """
        first = self.runs[0]
        padded = search_length(self.model.models[0], length)
        limit = self._limit(options, padded)
        maps = len(first.config.model.map_names) // self.layout.model if alignments else 0
        hypothesis = hypothesis_bytes(
            first.tgt_vocabulary.size, self.bytes_per_token(1), maps * padded, limit
        )
        models = self._full_models()
        source = sum(encoding_bytes(model, length) for model in models) // self.layout.model
        if self.shortlist is not None:  # the columns of the last layer, and a copy
            most = self.shortlist.most_tokens(length)
            source += sum(2 * 4 * output_width(model) * most for model in models)
        return SentenceBytes(source, hypothesis, length, limit)

    def _batches(
        self, source: Tokens, how: How, workers: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The batches of a search, as `inference_batches` yields them."""
        tokens, beam = how.max_batch_tokens, how.options.beam
        if self._is_cpu:  # where so many rows are fastest, of sentences or of hypotheses
            tokens = max(min(tokens // beam, _CPU_TOKENS), 1)
        growth = self.bytes_per_token(beam)

        def most_rows(length: int) -> int:
            each = self.sentence_bytes(length, how.options, alignments=how.alignments)
            caches = _CACHE_BYTES // max(growth * each.target_length, 1)
            rows = min(caches, self.memory // each.total(beam)) // workers
            return self.layout.data * rows

        return inference_batches(source, tokens, most_rows)

    def _limit(self, options: SearchOptions, length: int) -> int:
        """The most tokens of the translation of a source with so many."""
        return int(target_limits(self.runs, options, np.array([length]))[0])

    def bytes_per_token(self, beams: int) -> int:
        """Bytes of a device that a sentence's caches grow by with each token."""
        return beams * sum(map(cache_bytes, self._full_models())) // self.layout.model

    def _full_models(self) -> list[EncoderDecoder]:
        """The models as a single device would have them."""
        models = zip(self.runs, self.model.models, strict=True)
        return [build_model(run, precision=precision_of(model)) for run, model in models]

    def _find(
        self,
        sources: tuple[Source, ...],
        sentences: Sentences,
        how: How,
        watch: Watch | None,
    ) -> SearchResult:
        """Searches a batch and gathers the result as NumPy arrays.

        Args:
          sources: the B source sentences for each model.
          sentences: of NumPy arrays, what each of the B sentences brings.
          how, watch: see there.
        """
        vocabulary, edges = self.runs[0].tgt_vocabulary, None
        length = search_length(self.model.models[0], sources[0][1].shape[1])
        if sentences.banned is not None or sentences.phrases is not None:
            edges = word_edges(vocabulary.surfaces)
        static, arrays = split(
            how.options,
            vocabulary.specials,
            max_len=self._limit(how.options, length),
            edges=edges,
            with_attention=how.alignments,
            banned=how.constraints.banned_ids,
            processors=how.processors,
            vocabulary=vocabulary.size,
        )
        return find(
            self.layout,
            self.model,
            static,
            self.params,
            Shared(arrays, self.weights),
            *sharding.shard_rows((sources, sentences), self.layout),
            cache_grows=self.bytes_per_token(how.options.beam) > 0,
            gather=self._gather,
            watch=watch,
        )

    def _gather(self, result: SearchResult) -> SearchResult:
        """The NumPy arrays of a result on the devices."""
        gathered: SearchResult = sharding.gather_batch(result._replace(attention=None), self.layout)
        return gathered._replace(attention=self._all_heads(result.attention))

    def _workers(self, longest: int, how: How) -> int:
        """How many batches are searched at a time, the longest of so many source tokens.

        The small products of a step leave cores idle: a CPU does better with several batches.
        """
        if not self._is_cpu:
            return 1
        each = self.sentence_bytes(longest, how.options, alignments=how.alignments)
        fit = self.memory // each.total(how.options.beam)
        return max(1, min(devices.core_count(), _MOST_WORKERS, fit))

    @property
    def _is_cpu(self) -> bool:
        return self.layout.size == 1 and jax.default_backend() == "cpu"

    def _all_heads(self, attention: Array | None) -> Any:
        """Gathers the heads' attention from the devices: [B, W, T, M, S], ordered by layer."""
        if attention is None:
            return None
        parts = sharding.gather_batch_by_model(attention, self.layout)  # [devices, B, W, T, M, S]
        if len(parts) == 1:
            return parts[0]
        layers, _ = self.runs[0].config.model.attention_grid
        split = parts.reshape(*parts.shape[:4], layers, -1, parts.shape[-1])
        joined = np.moveaxis(split, 0, 4)  # [B, W, T, L, devices, H, S]
        return joined.reshape(*parts.shape[1:4], -1, parts.shape[-1])
