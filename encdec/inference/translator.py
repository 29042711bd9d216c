"""A run folder opened: text in; text, scores and alignments out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from encdec.config import DeviceConfig
from encdec.data.batches import inference_batches, round_length
from encdec.data.tokens import Tokens, tokens_of
from encdec.inference.decoding import (
    Source,
    max_target_lengths,
    search_program,
    self_attention_program,
)
from encdec.inference.scoring import log_probs_program
from encdec.models import registry
from encdec.parallel import sharding
from encdec.parallel.devices import compute_dtype
from encdec.parallel.layout import SINGLE_DEVICE, Layout
from encdec.runs import run as runs
from encdec.runs.parameters import best_params, build_model
from encdec.runs.run import Run
from encdec.search.constraints import banned_ids, check_min_length, prefix_ids, prefix_table
from encdec.search.interface import Processor
from encdec.search.methods import Sentences, split
from encdec.search.options import SearchOptions
from encdec.search.types import SearchResult
from encdec.types import Array, Batch, InputError, MapKind, Params


@dataclass(frozen=True)
class Translation:
    """One translation of one text.

    Attributes:
      text: the translation.
      score: what the search ranks by, nats: the log-probability over the length penalty, after
        processors; see `encdec.search.types.SearchResult`.
      log_prob: the model's own log-probability of the tokens, nats.
      src_tokens, tgt_tokens: labels, EOS among them.
      src_ids, tgt_ids: what they are labels of.
      attention: float32 [M, T, S], how much each target token looked at each source token in each
        of the model's maps; None when alignments were not asked for.
    """

    text: str
    score: float
    log_prob: float
    src_tokens: list[str]
    tgt_tokens: list[str]
    src_ids: list[int]
    tgt_ids: list[int]
    attention: np.ndarray | None


class _Constraints(NamedTuple):
    """What the translations of some texts must and must not contain.

    Attributes:
      banned: ids of each banned phrase.
      prefix: int32 [n, P], what each translation begins with, then -1.
      max_lengths: int32 [n], the most tokens that each may have.
    """

    banned: list[list[int]]
    prefix: np.ndarray
    max_lengths: np.ndarray


class Translator:
    """Translates with one set of parameters.

    Args:
      run: settings and vocabularies.
      params: the model's parameters, as they lie on devices.
      step: of the checkpoint that they are from, if they are from one.
      layout: the devices.
      dtype: of products.
    """

    def __init__(
        self,
        run: Run,
        params: Params,
        step: int | None = None,
        layout: Layout = SINGLE_DEVICE,
        dtype: Any = jnp.float32,
    ) -> None:
        self.run = run
        self.step = step
        self._params, self._layout = params, layout
        self._static = {"model": build_model(run, layout), "dtype": jnp.dtype(dtype)}
        self._specials = run.tgt_vocabulary.specials
        self._mean, self._weights = "probabilities", np.ones(1, np.float32)

    @property
    def members(self) -> "tuple[Translator, ...]":
        """The translators that decode together: this one, or those of an ensemble."""
        return (self,)

    def __call__(
        self,
        text: str,
        options: SearchOptions | None = None,
        *,
        processors: Sequence[Processor] = (),
    ) -> Translation:
        """The best translation of one text, with its alignment; arguments as in `nbest`."""
        return self.nbest([text], 1, options, processors=processors, alignments=True)[0][0]

    def translate(
        self, texts: Iterable[str], options: SearchOptions | None = None, **how: Any
    ) -> list[Translation]:
        """The best translation of each text; arguments as in `nbest`."""
        return [best[0] for best in self.nbest(texts, 1, options, **how)]

    def nbest(
        self,
        texts: Iterable[str],
        count: int,
        options: SearchOptions | None = None,
        *,
        prefixes: Sequence[str] | None = None,
        processors: Sequence[Processor] = (),
        alignments: bool = False,
        max_source_length: int | None = None,
        max_batch_tokens: int = 8192,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[Translation]]:
        """Up to `count` translations of each text, best first; a blank text translates to "".

        Args:
          texts: source sentences.
          count: at most the beam width.
          options: how to search.
          prefixes: what each translation begins with, "" where it is free; by default
            `options.prefix` for all.
          processors: rules of your own, see `encdec.search.interface.Processor`.
          alignments: return attention too.
          max_source_length: the tokens of a text after so many are cut off; by default none are.
          max_batch_tokens: the most source tokens in a batch, padding included; a longer text is a
            batch of its own.
          progress: called after each batch with the number of its texts.

        Raises:
          InputError: count is not between 1 and the beam width; or the options cannot be used with
            this vocabulary or these texts: a banned text, a prefix, a minimum length.
          TypeError: texts is one string: call the translator itself with it.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be several strings: for one, call translator(text)")
        options, texts = options or SearchOptions(), list(texts)
        if not 1 <= count <= options.beam:
            raise InputError(
                f"nbest = {count} cannot be had from beam = {options.beam}: "
                f"1 to {options.beam} can, or give a wider beam"
            )
        results = [[self._blank()] for _ in texts]
        real = [i for i, text in enumerate(texts) if text.strip()]
        sources = [
            member._encode([texts[i] for i in real], max_source_length) for member in self.members
        ]
        constraints = self._constraints(sources[0], options, _prefixes(texts, real, prefixes))
        if progress:
            progress(len(texts) - len(real))
        for rows, src, src_mask in inference_batches(sources[0], max_batch_tokens):
            others = [_padded_rows(tokens, rows, len(src)) for tokens in sources[1:]]
            batch: tuple[Source, ...] = ((src, src_mask), *others)
            result = self._search(batch, rows, options, constraints, processors, alignments)
            for row, index in enumerate(rows):
                found = self._read(result, row, sources[0][index], count)
                results[real[index]] = found
            if progress:
                progress(len(rows))
        return results

    def log_probs(self, batch: Batch) -> np.ndarray:
        """The log-probability of each target token of a batch, see `scoring.log_probs`.

        Args:
          batch: NumPy arrays, the same in all processes.

        Returns:
          float32 [B, T], nats; 0 where the target is padding.
        """
        program = log_probs_program(self._layout, **self._static)
        gathered = sharding.gather_batch(program(self._params, self._rows(batch)), self._layout)
        return np.asarray(gathered)[: len(batch.src)]

    @property
    def map_names(self) -> list[str]:
        """What each of a translation's M maps is of."""
        return self.run.config.model.map_names

    def attention(self, found: Translation, kind: MapKind = "encoder-decoder") -> np.ndarray:
        """Where each token of a translation, or of its source, looked.

        Args:
          found: a translation by this translator, with its alignment.
          kind: who looks at whom; a Transformer alone has other than encoder-decoder.

        Returns:
          float32 [M, rows, columns]: encoder-decoder [M, T, S], encoder [M, S, S], decoder
          [M, T, T]. A row of the last is the token that was chosen there, its columns the tokens
          before it, BOS first.

        Raises:
          InputError: the model has no such maps, the translation came without its alignment, or
            another kind than encoder-decoder is asked for on several devices.
        """
        model, kinds = self.run.config.model_name, self.run.config.model.attention_kinds
        if not kinds:
            raise InputError(f"{self.run.path} is a run of {model}, which has no attention")
        if kind not in kinds:
            raise InputError(
                f"{self.run.path} is a run of {model}, which has only {' and '.join(kinds)} maps"
            )
        if found.attention is None:
            raise InputError("the translation has no alignment: of a blank text, or not asked for")
        if kind == "encoder-decoder":
            return found.attention
        if self._layout.size > 1:
            raise InputError(f"{kind} maps cannot be had in layout {self._layout}: load it as 1x1")
        start = self.run.tgt_vocabulary.specials.start
        src, tgt_in = found.src_ids, [start, *found.tgt_ids[:-1]]
        program = self_attention_program(**self._static)
        padded_src = _padded(src)[None]
        mask = np.arange(padded_src.shape[1])[None] < len(src)
        maps = program(self._params, padded_src, mask, _padded(tgt_in)[None])[kind][0]
        side = len(src) if kind == "encoder" else len(tgt_in)
        return np.asarray(maps[..., :side, :side]).reshape(-1, side, side)

    def source_length(self, text: str) -> int:
        """Tokens of a source text."""
        return len(self.run.src_vocabulary.encode(text))

    def _rows(self, batch: Any) -> Any:
        """Rows of padding added until they fall evenly on devices; this process's on its own."""
        layout = self._layout

        def local(x: np.ndarray) -> np.ndarray:
            rows = sharding.padded_batch_size(len(x), layout)
            padded = np.pad(x, [(0, rows - len(x)), *[(0, 0)] * (x.ndim - 1)])
            return padded[sharding.local_batch_rows(rows, layout)]

        return sharding.shard_batch(jax.tree.map(local, batch), layout)

    def _encode(self, texts: Sequence[str], max_length: int | None) -> Tokens:
        """Source tokens of texts, cut to a length."""
        ids = self.run.src_vocabulary.encode_all(texts)
        cut = (sentence[:max_length] for sentence in ids)
        return tokens_of(cut, self.run.src_vocabulary.specials)

    def _constraints(
        self, source: Tokens, options: SearchOptions, prefixes: Sequence[str] | None
    ) -> _Constraints:
        """What translations must and must not contain, checked against the vocabulary."""
        vocabulary, specials = self.run.tgt_vocabulary, self._specials
        encode, unknown = vocabulary.encode, specials.unknown
        max_lengths = max_target_lengths(source.lengths(), options.max_ratio, self._extra(options))
        check_min_length(options, max_lengths)
        banned = banned_ids(options, encode, unknown)
        texts = [options.prefix] * len(source) if prefixes is None else prefixes
        prefix = prefix_ids(texts, banned, max_lengths, encode, unknown)
        longest = max(map(len, prefix), default=0)
        columns = round_length(longest) if longest else 0  # few shapes
        return _Constraints(banned, prefix_table(prefix, columns), max_lengths)

    def _search(
        self,
        sources: tuple[Source, ...],
        rows: np.ndarray,
        options: SearchOptions,
        constraints: _Constraints,
        processors: Sequence[Processor],
        alignments: bool,
    ) -> SearchResult:
        """Searches a batch: NumPy arrays of all its rows.

        Args:
          sources: of each member, of B sentences.
          rows: int [n], n <= B, which of the texts the first n sentences are.
          options, constraints, processors, alignments: how to search.
        """
        size, source_length = sources[0][0].shape
        static, arrays = split(
            options,
            self._specials,
            max_len=int(source_length * options.max_ratio) + self._extra(options),
            with_attention=alignments,
            banned=constraints.banned,
            processors=processors,
        )
        members = [member._static for member in self.members]
        program = search_program(
            self._layout,
            models=tuple(member["model"] for member in members),
            dtype=self._static["dtype"],
            static=static,
            mean=self._mean,
        )
        missing = [(0, size - len(rows)), (0, 0)]
        sentences: Any = (
            np.pad(constraints.max_lengths[rows], missing[:1]),
            np.resize(rows, size).astype(np.int32),
            np.pad(constraints.prefix[rows], missing),
        )
        sharded = self._rows((sources, Sentences(*sentences)))
        params = tuple(member._params for member in self.members)
        result: SearchResult = program(params, *sharded, arrays, self._weights)
        whole: SearchResult = sharding.gather_batch(result._replace(attention=None), self._layout)
        return whole._replace(attention=self._all_heads(result.attention))

    def _extra(self, options: SearchOptions) -> int:
        return self.run.extra_length if options.max_extra is None else options.max_extra

    def _all_heads(self, attention: Array | None) -> Any:
        """Weights [B, W, T, M, S], the maps layer by layer, from those of each device's heads."""
        if attention is None:
            return None
        parts = sharding.gather_batch_by_model(attention, self._layout)  # [devices, B, W, T, M, S]
        if len(parts) == 1:
            return parts[0]
        layers, _ = self.run.config.model.attention_grid
        split = parts.reshape(*parts.shape[:4], layers, -1, parts.shape[-1])
        joined = np.moveaxis(split, 0, 4)  # [B, W, T, L, devices, H, S]
        return joined.reshape(*parts.shape[1:4], -1, parts.shape[-1])

    def _read(self, found: Any, row: int, src: np.ndarray, count: int) -> list[Translation]:
        """The translations of one row of a batch; `found` is a SearchResult of NumPy arrays."""
        source, target = self.run.src_vocabulary, self.run.tgt_vocabulary
        usable = [w for w in range(count) if np.isfinite(found.scores[row, w])]
        results = []
        for w in usable:
            ids = found.tokens[row, w, : found.lengths[row, w]].tolist()
            attention = None
            if found.attention is not None:
                steps = found.attention[row, w, : len(ids), :, : len(src)]  # [T, M, S]
                attention = np.moveaxis(steps, 1, 0)
            results.append(
                Translation(
                    text=target.decode(ids),
                    score=float(found.scores[row, w]),
                    log_prob=float(found.log_probs[row, w]),
                    src_tokens=source.tokens(src.tolist()),
                    tgt_tokens=target.tokens(ids),
                    src_ids=src.tolist(),
                    tgt_ids=ids,
                    attention=attention,
                )
            )
        return results

    def _blank(self) -> Translation:
        return Translation("", 0.0, 0.0, [], [], [], [], None)


def _prefixes(
    texts: Sequence[str], real: Sequence[int], prefixes: Sequence[str] | None
) -> list[str] | None:
    """The prefixes of the texts that are not blank."""
    if prefixes is None:
        return None
    if isinstance(prefixes, str) or len(prefixes) != len(texts):
        raise InputError(
            f"there are {len(texts)} texts: give as many prefixes, or one for all as options.prefix"
        )
    return [prefixes[i] for i in real]


def _padded_rows(source: Tokens, rows: np.ndarray, size: int) -> Source:
    """The sources of a batch of `size` rows, as `inference_batches` makes them."""
    return source.padded(rows, size, round_length(int(source.lengths()[rows].max())))


def _padded(ids: Sequence[int]) -> np.ndarray:
    """int32, padded up to one of few lengths."""
    return np.pad(np.asarray(ids, np.int32), (0, round_length(len(ids)) - len(ids)))


def load(path: str | Path, layout: Layout = SINGLE_DEVICE, dtype: Any = jnp.float32) -> Translator:
    """Opens a run folder with its best parameters (the latest where none was chosen yet).

    Args:
      path: the folder.
      layout: the devices to translate on.
      dtype: of products.

    Raises:
      InputError: it is no run folder, is damaged, has no checkpoint yet, or its model cannot be
        split over these devices.
    """
    run = runs.load(path)
    layout.check_model(run.config.model)
    params, step = best_params(run)
    split = sharding.shard_specs(params, registry.split_axes(build_model(run)), layout)
    return Translator(run, sharding.shard(params, split, layout), step, layout, dtype)


def load_on(devices: DeviceConfig, path: str | Path) -> Translator:
    """As `load`, on the devices that a command was given."""
    layout = Layout.parse(devices.layout)
    return load(path, layout, compute_dtype(devices.precision))
