"""Several models that decode as one: `DecodeStep`s made into one `DecodeStep`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from encdec.types import Array, Cache, DecodeStep, Memory


def ensemble(
    steps: Sequence[DecodeStep], weights: Array, *, mean: str = "probabilities"
) -> DecodeStep:
    """One step whose logits are the normalised mean of the members' log-probabilities.

    With weights w_k that add up to 1, the next token has

        log p = log sum_k w_k p_k             mean "probabilities"
        log p = sum_k w_k log p_k - log Z     mean "log-probabilities"

    where Z makes the probabilities add up to 1. The step's memory and cache are tuples of the
    members'. Its attention is that of the first member. A single member's logits are as they were.

    Args:
      steps: the members; all have the same target vocabulary.
      weights: float32 [len(steps)], at least 0.
      mean: static; "probabilities" or "log-probabilities".
    """

    def step(memory: Memory, cache: Cache, tokens: Array) -> tuple[Array, Array, Cache]:
        members = [one(m, c, tokens) for one, m, c in zip(steps, memory, cache, strict=True)]
        logits, attention, caches = zip(*members, strict=True)
        if len(members) == 1:  # nothing to combine
            return logits[0], attention[0], caches
        log_probs = jax.nn.log_softmax(jnp.stack([x.astype(jnp.float32) for x in logits]))
        w = weights.reshape(-1, 1, 1, 1)  # log_probs [K, B, W, V]
        if mean == "probabilities":
            combined = jax.nn.logsumexp(log_probs + jnp.log(w), 0)
        else:
            # A weight of 0 times the -inf of a token that no hypothesis has is NaN.
            combined = jax.nn.log_softmax(jnp.where(w > 0, w * log_probs, 0).sum(0))
        return combined, attention[0], caches

    return step
