"""A run folder opened: text in; text, scores and alignments out."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from encdec import models
from encdec import run as runs
from encdec.data.batching import inference_batches, scoring_batches
from encdec.data.sources import Pairs
from encdec.data.tokens import encode_pairs, tokens_of
from encdec.ops import masks
from encdec.report import metrics
from encdec.report.metrics import ScoreOptions
from encdec.run import Run
from encdec.search import Found, beam_search, greedy, sample
from encdec.training import checkpoints
from encdec.training.step import batch_loss
from encdec.types import PAD, Array, Batch, InputError, Params


@dataclass(frozen=True)
class SearchOptions:
    """How translations are looked for."""

    beam: int = 5
    """Beam width; 1 is greedy search."""
    length_penalty: float = 0.6
    """Exponent of ((5 + length) / 6) that log-probabilities are divided by (Wu 2016)."""
    max_ratio: float = 2.0
    """Longest translation: this many tokens for each source token ..."""
    max_extra: int | None = None
    """... and this many more; left out, what the training data needs."""
    sample: bool = False
    """Draw at random instead of searching; the beam width is then the number of draws."""
    temperature: float = 1.0
    """Sampling: above 1 flatter, towards 0 greedy."""
    top_k: int = 0
    """Sampling: only the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Sampling: only the fewest tokens whose probabilities reach p."""
    seed: int = 0
    """Sampling: the seed."""

    def __post_init__(self) -> None:
        checks = {
            "beam": (self.beam >= 1, "at least 1"),
            "length_penalty": (self.length_penalty >= 0, "at least 0"),
            "max_ratio": (self.max_ratio >= 0, "at least 0"),
            "max_extra": (self.max_extra is None or self.max_extra >= 1, "at least 1"),
            "temperature": (self.temperature > 0, "above 0"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
        }
        for name, (ok, accepts) in checks.items():
            if not ok:
                value = getattr(self, name)
                raise InputError(f"{name} = {value!r} cannot be used: it must be {accepts}")


@dataclass(frozen=True)
class Translation:
    """One translation of one text.

    Attributes:
      text: the translation.
      score: log-probability over the length penalty, nats.
      log_prob: log-probability, nats.
      src_tokens, tgt_tokens: labels, EOS among them.
      weights: float32 [M, T, S], how much each target token looked at each source token in each
        of the model's maps; None when alignments were not asked for.
    """

    text: str
    score: float
    log_prob: float
    src_tokens: list[str]
    tgt_tokens: list[str]
    weights: np.ndarray | None


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of sentences; `loss` in nats a token, `seconds` of decoding."""

    scores: metrics.Scores
    loss: float
    seconds: float
    hypotheses: list[str]

    def summary(self) -> dict[str, Any]:
        """One flat JSON object."""
        return {**self.scores.summary(), "loss": self.loss, "seconds": self.seconds}


@partial(jax.jit, static_argnames=("model", "max_len", "beam", "method", "top_k", "with_weights"))
def _search(
    model: nn.Module,
    params: Params,
    src: Array,
    limits: Array,
    knobs: dict[str, Array],
    *,
    max_len: int,
    beam: int,
    method: Literal["greedy", "beam", "sample"],
    top_k: int,
    with_weights: bool,
) -> Found:
    """Encodes a batch and searches: src int32 [B, S], limits int32 [B]."""
    bound = partial(model.apply, {"params": params})
    memory: Any = bound(src, masks.padding(src), method="encode")
    cache = bound(memory, beam, max_len, method="init_cache")
    step: Any = partial(bound, method="decode_step")
    common: dict[str, Any] = {
        "max_len": max_len,
        "alpha": knobs["alpha"],
        "with_weights": with_weights,
    }
    if method == "greedy":
        return greedy(step, memory, cache, limits, **common)
    if method == "beam":
        return beam_search(step, memory, cache, limits, beams=beam, **common)
    return sample(
        step,
        memory,
        cache,
        limits,
        jax.vmap(partial(jax.random.fold_in, jax.random.key(knobs["seed"])))(knobs["places"]),
        samples=beam,
        temperature=knobs["temperature"],
        top_k=top_k,
        top_p=knobs["top_p"],
        **common,
    )


@partial(jax.jit, static_argnames="model")
def _loss(model: nn.Module, params: Params, batch: Batch) -> tuple[Array, Array]:
    sums = batch_loss(model, params, batch, 0.0, None)
    return sums.nll, sums.tokens


class Translator:
    """Translates with one set of parameters.

    Args:
      run: settings and vocabularies.
      params: the model's parameters.
      step: of the checkpoint that they are from, if they are from one.
    """

    def __init__(self, run: Run, params: Params, step: int | None = None) -> None:
        self.run = run
        self.step = step
        self._model = build_model(run)
        self._params = params

    def __call__(self, text: str, options: SearchOptions | None = None) -> Translation:
        """The best translation of one text, with its alignment."""
        return self.nbest([text], 1, options, alignments=True)[0][0]

    def translate(
        self, texts: Iterable[str], options: SearchOptions | None = None, **how: Any
    ) -> list[Translation]:
        """The best translation of each text; arguments as in `nbest`."""
        return [found[0] for found in self.nbest(texts, 1, options, **how)]

    def nbest(
        self,
        texts: Iterable[str],
        count: int,
        options: SearchOptions | None = None,
        *,
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
          alignments: return attention weights too.
          max_source_length: tokens of a text that are read; all when left out.
          max_batch_tokens: most source cells in a batch; longer texts go alone.
          progress: called with the number of texts done, batch after batch.

        Raises:
          InputError: count is not between 1 and the beam width.
          TypeError: texts is one string: call the translator itself with it.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be several strings: for one, call translator(text)")
        options = options or SearchOptions()
        if not 1 <= count <= max(options.beam, 1):
            raise InputError(
                f"nbest = {count} cannot be had from beam = {options.beam}: "
                f"1 to {options.beam} can, or give a wider beam"
            )
        texts = list(texts)
        results = [[self._blank()] for _ in texts]
        real = [i for i, text in enumerate(texts) if text.strip()]
        ids = self.run.src_vocabulary.encode_all([texts[i] for i in real])
        encoded = tokens_of(sentence[:max_source_length] for sentence in ids)
        if progress:
            progress(len(texts) - len(real))
        for rows, src in inference_batches(encoded, max_batch_tokens):
            found: Any = jax.device_get(self._find(src, rows, options, alignments))
            for row, index in enumerate(rows):
                results[real[index]] = self._read(found, row, encoded[index], count)
            if progress:
                progress(len(rows))
        return results

    def loss(self, pairs: Pairs, max_batch_tokens: int = 8192) -> float:
        """Negative log-likelihood of the targets, nats a token (EOS counts)."""
        examples = encode_pairs(pairs, self.run.src_vocabulary, self.run.tgt_vocabulary)
        parts = [
            _loss(self._model, self._params, batch)
            for _, batch in scoring_batches(examples, max_batch_tokens)
        ]
        nll, tokens = np.sum(jax.device_get(parts), axis=0)
        return float(nll / tokens)

    def evaluate(
        self,
        pairs: Pairs,
        options: SearchOptions | None = None,
        *,
        scoring: ScoreOptions | None = None,
        names: Iterable[str] = metrics.NAMES,
        **how: Any,
    ) -> Evaluation:
        """Translates the sources and scores the result against the targets.

        Args:
          pairs: sources and references; blank ones count too.
          options: how to search.
          scoring: how text is compared; left out, as the run's settings say.
          names: the scores to compute.
          how: as in `nbest`.
        """
        start = time.perf_counter()
        hypotheses = [t.text for t in self.translate(pairs.src, options, **how)]
        seconds = time.perf_counter() - start
        scoring = scoring or metrics.score_options(self.run.config)
        scores = metrics.score(hypotheses, pairs.tgt, scoring, names)
        return Evaluation(scores, self.loss(pairs), seconds, hypotheses)

    def source_length(self, text: str) -> int:
        """Tokens of a source text."""
        return len(self.run.src_vocabulary.encode(text))

    def _find(
        self, src: np.ndarray, rows: np.ndarray, options: SearchOptions, alignments: bool
    ) -> Found:
        extra = self.run.extra_length if options.max_extra is None else options.max_extra
        lengths = (src != PAD).sum(1)
        limits = np.where(lengths > 0, lengths * options.max_ratio + extra, 0).astype(np.int32)
        knobs: dict[str, Any] = {"alpha": jnp.float32(options.length_penalty)}
        method: Literal["greedy", "beam", "sample"] = "greedy" if options.beam == 1 else "beam"
        if options.sample:
            method = "sample"
            knobs |= {
                "temperature": jnp.float32(options.temperature),
                "top_p": jnp.float32(options.top_p),
                "seed": jnp.int32(options.seed),
                # A draw depends on the seed and the text's place alone, not on its batch.
                "places": jnp.asarray(np.resize(rows, len(src)), jnp.int32),
            }
        return _search(
            self._model,
            self._params,
            src,
            limits,
            knobs,
            max_len=int(src.shape[1] * options.max_ratio) + extra,
            beam=options.beam,
            method=method,
            top_k=options.top_k,
            with_weights=alignments,
        )

    def _read(self, found: Any, row: int, src: np.ndarray, count: int) -> list[Translation]:
        """The translations of one row of a batch; `found` is a Found of NumPy arrays."""
        source, target = self.run.src_vocabulary, self.run.tgt_vocabulary
        usable = [w for w in range(count) if np.isfinite(found.scores[row, w])]
        results = []
        for w in usable:
            ids = found.tokens[row, w, : found.lengths[row, w]].tolist()
            weights = None
            if found.weights is not None:
                steps = found.weights[row, w, : len(ids), :, : len(src)]  # [T, M, S]
                weights = np.moveaxis(steps, 1, 0)
            results.append(
                Translation(
                    text=target.decode(ids),
                    score=float(found.scores[row, w]),
                    log_prob=float(found.log_probs[row, w]),
                    src_tokens=source.tokens(src.tolist()),
                    tgt_tokens=target.tokens(ids),
                    weights=weights,
                )
            )
        return results

    def _blank(self) -> Translation:
        return Translation("", 0.0, 0.0, [], [], None)


def build_model(run: Run) -> nn.Module:
    """The module of a run."""
    return models.build(
        run.config.model,
        run.src_vocabulary.size,
        run.tgt_vocabulary.size,
        joint=run.config.data.joint_vocabulary,
    )


def abstract_params(run: Run) -> Params:
    """Names, shapes and types of a run's parameters."""
    token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 1), bool)
    variables = jax.eval_shape(build_model(run).init, jax.random.key(0), token, mask, token)
    return variables["params"]


def load(path: str | Path) -> Translator:
    """Opens a run folder with its best parameters (the latest where none was chosen yet).

    Raises:
      InputError: it is no run folder, is damaged, or has no checkpoint yet.
    """
    run = runs.load(path)
    like = {"params": abstract_params(run)}
    kind: checkpoints.Kind = "best" if checkpoints.steps(run.path, "best") else "latest"
    tree, _ = checkpoints.load(run.path, kind, like)
    step = checkpoints.steps(run.path, kind)[-1]
    return Translator(run, jax.tree.map(jnp.asarray, tree["params"]), step)
