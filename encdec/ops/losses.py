"""Cross-entropy over a vocabulary, in nats."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.types import PAD, Array

_CELLS = 2**22
"""Logits that exist at a time: 16 MiB of float32, about what a CPU's cache holds."""


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


def cross_entropy(
    features: Array, kernel: Array, bias: Array | None, labels: Array, smoothing: float
) -> LossSums:
    """Label-smoothed cross-entropy (Szegedy 2016, section 7) of z = features @ kernel + bias.

    -sum_v q(v) log p(v) with q = (1 - e) [v = y] + e / V, which is
    logsumexp(z) - (1 - e) z_y - e mean(z). Padding weighs nothing. The logits z are made, used
    and dropped a part of the tokens at a time, together with their share of the gradient, so
    neither they nor a one-hot of V are ever there as a whole.

    Only `loss` is differentiable; the other sums are measurements.

    Args:
      features: [B, T, D].
      kernel: [D, V].
      bias: [V], or None.
      labels: int32 [B, T]; PAD where there is no token.
      smoothing: e.
    """
    rows = labels.size
    part = max(1, min(rows, _CELLS // kernel.shape[1]))
    empty = -rows % part
    x = jnp.pad(features.reshape(rows, -1), ((0, empty), (0, 0))).reshape(-1, part, kernel.shape[0])
    y = jnp.pad(labels.reshape(rows), (0, empty), constant_values=PAD).reshape(-1, part)
    return _by_parts(smoothing, (x, kernel, bias), y)


Operands = tuple[Array, Array, Array | None]
"""features [parts, N, D], kernel [D, V], bias [V] or None."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_parts(smoothing: float, operands: Operands, labels: Array) -> LossSums:
    x, kernel, bias = operands

    def add(sums: LossSums, part: tuple[Array, Array]) -> tuple[LossSums, None]:
        new = _sums(smoothing, _logits(part[0], kernel, bias), part[1])[0]
        return LossSums(*map(jnp.add, sums, new)), None

    return jax.lax.scan(add, LossSums(*jnp.zeros(4)), (x, labels))[0]


def _forward(smoothing: float, operands: Operands, labels: Array) -> tuple[LossSums, Operands]:
    """The loss is a sum, so its gradient can be made beside it, but for one factor."""
    x, kernel, bias = operands

    def add(total: Any, part: tuple[Array, Array]) -> tuple[Any, Array]:
        sums, of_kernel, of_bias = total
        x, labels = part
        z = _logits(x, kernel, bias)
        new, dz = _sums(smoothing, z, labels)
        dz = dz.astype(kernel.dtype)
        of_kernel += x.T @ dz
        if of_bias is not None:
            of_bias += dz.sum(0)
        return (LossSums(*map(jnp.add, sums, new)), of_kernel, of_bias), dz @ kernel.T

    start = (LossSums(*jnp.zeros(4)), *jax.tree.map(jnp.zeros_like, (kernel, bias)))
    (sums, of_kernel, of_bias), of_x = jax.lax.scan(add, start, (x, labels))
    return sums, (of_x, of_kernel, of_bias)


def _backward(_: float, gradients: Operands, cotangent: LossSums) -> tuple[Operands, None]:
    return jax.tree.map(lambda g: g * cotangent.loss.astype(g.dtype), gradients), None


_by_parts.defvjp(_forward, _backward)


def _logits(x: Array, kernel: Array, bias: Array | None) -> Array:
    z = x @ kernel
    return (z if bias is None else z + bias).astype(jnp.float32)


def _sums(smoothing: float, z: Array, labels: Array) -> tuple[LossSums, Array]:
    """The sums of logits [N, V] and labels [N], and dloss/dz = softmax(z) - q [N, V]."""
    real = labels != PAD
    best = z.max(-1)
    total = best + jnp.log(jnp.exp(z - best[:, None]).sum(-1))
    at_label = jnp.take_along_axis(z, labels[:, None], -1)[:, 0]
    loss = total - (1 - smoothing) * at_label
    if smoothing:
        loss = loss - smoothing * z.mean(-1)
    sums = LossSums(
        loss=jnp.where(real, loss, 0).sum(),
        nll=jnp.where(real, total - at_label, 0).sum(),
        correct=((at_label >= best) & real).sum(dtype=jnp.float32),
        tokens=real.sum(dtype=jnp.float32),
    )
    is_label = jnp.arange(z.shape[-1]) == labels[:, None]
    even = smoothing / z.shape[-1]
    dz = jnp.exp(z - total[:, None]) - even - jnp.where(is_label, 1 - smoothing, 0)
    return sums, jnp.where(real[:, None], dz, 0)
