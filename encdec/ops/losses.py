"""Cross-entropy over a vocabulary, in nats."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.types import PAD, Array


class LossSums(NamedTuple):
    """Sums over a batch's real tokens, to be added up before they are divided.

    Attributes:
      loss: the training loss, label smoothing included, float32 [], nats.
      nll: negative log-likelihood, float32 [], nats.
      correct: tokens whose best logit is the target, float32 [].
      tokens: real tokens, float32 [].
    """

    loss: Array
    nll: Array
    correct: Array
    tokens: Array


def cross_entropy(logits: Array, labels: Array, smoothing: float) -> LossSums:
    """Label-smoothed cross-entropy (Szegedy 2016, section 7); padding weighs nothing.

    -sum_v q(v) log p(v) with q = (1 - e) [v = y] + e / V, which is
    logsumexp(z) - (1 - e) z_y - e mean(z): no one-hot of V is built.

    Args:
      logits: [B, T, V].
      labels: int32 [B, T]; PAD where there is no token.
      smoothing: e.
    """
    logits = logits.astype(jnp.float32)
    real = labels != PAD
    total = jax.nn.logsumexp(logits, axis=-1)
    at_label = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    nll = total - at_label
    loss = nll
    if smoothing:
        loss = total - (1 - smoothing) * at_label - smoothing * logits.mean(-1)
    correct = (at_label >= logits.max(-1)) & real
    return LossSums(
        loss=jnp.where(real, loss, 0).sum(),
        nll=jnp.where(real, nll, 0).sum(),
        correct=correct.sum(dtype=jnp.float32),
        tokens=real.sum(dtype=jnp.float32),
    )
