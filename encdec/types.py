"""Glossary: the letters of array axes, and the types that tie the parts together.

B sentences · S source length · T target length · W beam width · D model width · H heads ·
K head width · F feed-forward width · V vocabulary · L layers · M attention maps (0 where a model
has none, 1 for a recurrent decoder, L·H for a Transformer) · N devices.

Lengths are in tokens, losses in nats, times in seconds. A mask is bool and True means keep.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

PAD, BOS, EOS, UNK = range(4)
"""The ids that every vocabulary begins with."""

Params = Any
"""A pytree of float32 arrays: the weights of one model."""
Memory = Any
"""A pytree of arrays with leading axis B: all that depends on the source alone."""
Cache = Any
"""A pytree of arrays with leading axes [B, W]: what one hypothesis carries from step to step."""


class InputError(ValueError):
    """What a person gave cannot be used: one line that names it and says what to do."""


class Batch(NamedTuple):
    """Sentences of one shape. A row of PAD alone is an empty sentence: it weighs nothing.

    Attributes:
      src: int32 [B, S], each row tokens, EOS, then PAD.
      tgt: int32 [B, T + 1], each row BOS, tokens, EOS, then PAD.
    """

    src: np.ndarray | Array
    tgt: np.ndarray | Array


class LogitFactors(NamedTuple):
    """The last linear map left undone: logits = features @ kernel + bias.

    A batch's logits are the largest array of all; the loss works through them part by part.

    Attributes:
      features: float [B, T, D].
      kernel: like the features, [D, V].
      bias: [V], or None.
    """

    features: Array
    kernel: Array
    bias: Array | None

    def logits(self) -> Array:
        """float32 [B, T, V]."""
        logits = jnp.matmul(self.features, self.kernel, preferred_element_type=jnp.float32)
        return logits if self.bias is None else logits + self.bias.astype(jnp.float32)


DecodeStep = Callable[[Memory, Cache, Array], tuple[Array, Array, Cache]]
"""(memory, cache, tokens int32 [B, W]) -> (logits [B, W, V], weights [B, W, M, S], cache).

One token for each hypothesis, bound to parameters; all that search knows of a model."""
