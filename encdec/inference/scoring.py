"""Scores: log-probabilities of given translations, log p(target | source), in nats.

`log_probs` is a pure function of arrays; `score` takes strings. The validation loss, the loss that
`encdec evaluate` prints and the scores of `encdec score` all come from `log_probs`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from encdec.data.batches import MostRows, round_length, scoring_batches
from encdec.data.sources import GivenPairs, Pair, Pairs, read_all
from encdec.data.tokens import Examples, encode_pairs
from encdec.inference.arguments import check_translator, given_integer
from encdec.inference.program_memory import peak_bytes, scaled_bytes
from encdec.models import registry
from encdec.models.interface import EncoderDecoder, bind
from encdec.models.loss import batch_log_probs, rows_of_logits
from encdec.parallel import pmap
from encdec.parallel.layout import Layout
from encdec.types import Array, Batch, InputError, Params

_LOGIT_BYTES = 8
"""Bytes of a logit while it is there: the logit and its exponent."""

if TYPE_CHECKING:
    from encdec.inference.translator import Translator


@dataclass(frozen=True, eq=False)
class Scores:
    """Log-probabilities of n translations.

    Attributes:
      token_log_probs: n arrays float32 [T], log p(y_t | y_<t, x) of each target token in nats; the
        last is that of the end token. Empty for a pair of two blank texts.
    """

    token_log_probs: list[np.ndarray]

    @property
    def log_probs(self) -> np.ndarray:
        """log p(y | x) = sum_t log p(y_t | y_<t, x) of each translation: float64 [n], nats."""
        return np.array([tokens.sum(dtype=np.float64) for tokens in self.token_log_probs])

    @property
    def loss(self) -> float:
        """Negative log-likelihood of all translations, divided by their tokens: nats per token."""
        tokens = sum(map(len, self.token_log_probs))
        return float(-self.log_probs.sum() / max(tokens, 1)) + 0.0  # of no tokens it is not -0.0


def score(
    translator: "Translator",
    pairs: Pairs | Iterable[Pair],
    *,
    max_batch_tokens: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Computes log p(target | source) of each pair under the translator's model.

    A target is split into tokens as the training data was. A translation by the same model gets the
    `log_prob` of the search, if the search chose the same segmentation and reached the end token. A
    pair of two blank texts has probability 1, as blank text is translated without the model; if
    only the source is blank, the model reads its end token alone.

    Args:
      translator: the translator whose model computes the log-probabilities.
      pairs: sources and targets; any of them may be empty.
      max_batch_tokens: the most source or target tokens in a batch, padding included; a batch has
        fewer where it would not fit into what is free of a device.
      progress: called after each batch with the number of its pairs.

    Raises:
      InputError: a pair is not a (source, target) of two str, or does not fit into memory; or
        another argument is of another type.
    """
    check_translator(translator)
    max_batch_tokens = given_integer("max_batch_tokens", max_batch_tokens)
    sources, targets = read_all(GivenPairs(pairs, "the pairs"))
    scores = [np.zeros(0, np.float32) for _ in sources]
    real = [
        i for i, both in enumerate(zip(sources, targets, strict=True)) if any(map(str.strip, both))
    ]
    examples = encode_pairs(
        Pairs([sources[i] for i in real], [targets[i] for i in real]),
        translator.run.src_vocabulary,
        translator.run.tgt_vocabulary,
    )
    lengths = examples.tgt.lengths()
    if progress:
        progress(len(sources) - len(real))
    check_scoring(examples, translator.most_rows_to_score)
    for rows, batch in scoring_batches(examples, max_batch_tokens, translator.most_rows_to_score):
        block = translator.log_probs(batch)
        for row, i in enumerate(rows):
            scores[real[i]] = block[row, : lengths[i]].copy()
        if progress:
            progress(len(rows))
    return Scores(scores)


def check_scoring(examples: Examples, most_rows: MostRows) -> None:
    """Raises InputError if the longest pair alone does not fit into memory.

    Args:
      examples: the pairs to score.
      most_rows: as for `scoring_batches`.
    """
    longest = max(int(side.max(initial=0)) for side in examples.lengths())
    if longest and most_rows(round_length(longest)) == 0:
        raise InputError(
            f"a pair with a side of {longest} tokens cannot be scored, because it does not fit "
            "into what is free of a device: split or cut it"
        )


def rows_that_fit(full_model: EncoderDecoder, layout: Layout, memory: int, length: int) -> int:
    """The most pairs of so many tokens on each side that can be scored at once.

    Args:
      full_model: as a single device has it.
      layout: the devices.
      memory: bytes of each device that a batch may need.
      length: tokens of each side.
    """
    of_token = _LOGIT_BYTES * -(-full_model.tgt_vocabulary // layout.model)
    each = scaled_bytes(partial(_features_bytes, full_model), length) // layout.model + 1
    # Logits exist for all tokens of a few rows, or for a part of the tokens of many.
    few = memory // (each + of_token * length)
    many = max(memory - of_token * rows_of_logits(full_model, layout), 0) // each
    return max(few, many) * layout.data


@lru_cache(maxsize=256)
def _features_bytes(model: EncoderDecoder, length: int) -> int:
    """About the bytes that a pair of `length` tokens on each side needs before its logits."""

    def features(params: Params, src: Array, src_mask: Array) -> Array:
        factors = bind(model, params)(src, src_mask, src, method="logit_factors")
        return factors.features

    source = (jax.ShapeDtypeStruct((1, length), dtype) for dtype in (jnp.int32, bool))
    return peak_bytes(features, registry.abstract(model), *source)


def log_probs(params: Params, batch: Batch, *, model: nn.Module, rows: int | None = None) -> Array:
    """Computes the log-probabilities of the target tokens of a batch on one device.

    Args:
      params: float32 pytree, as one device holds it.
      batch: B sentence pairs; tgt [B, T + 1] begins with the start token.
      model: static; the module.
      rows: static; see `encdec.models.loss.batch_loss`.

    Returns:
      float32 [B, T], nats: entry t is log p(tgt[t + 1] | tgt[:t + 1], src), for the end token too;
      0 where tgt[t + 1] is padding.
    """
    return batch_log_probs(model, params, batch, rows)


@lru_cache(maxsize=8)
def log_probs_program(layout: Layout, model: nn.Module) -> Any:
    """`log_probs` on the devices of a layout, compiled once for each model."""
    step = partial(log_probs, model=model, rows=rows_of_logits(model, layout))
    return pmap.parallelize(step, layout, (True, True))
