"""Cross-entropy over a vocabulary, in nats."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array

_CELLS = 2**22
"""Logits that exist at a time: 16 MiB of float32, about what a CPU's cache holds."""


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


class _Kind(NamedTuple):
    """What is fixed before tracing: label smoothing, V, and the devices that V is split over."""

    smoothing: float
    vocabulary: int
    axis: Axis | None


def cross_entropy(
    features: Array,
    kernel: Array,
    bias: Array | None,
    labels: Array,
    mask: Array,
    smoothing: float,
    vocabulary: int | None = None,
    axis: Axis | None = None,
) -> LossSums:
    """Label-smoothed cross-entropy (Szegedy 2016, section 7) of z = features @ kernel + bias.

    -sum_v q(v) log p(v) with q = (1 - e) [v = y] + e / V, which is
    logsumexp(z) - (1 - e) z_y - e mean(z). Padding weighs nothing. The logits z are made, used
    and dropped a part of the tokens at a time, together with their share of the gradient, so
    neither they nor a one-hot of V are ever there as a whole. Where V is split over devices, no
    device sees the others' logits: they exchange three numbers a token.

    Only `loss` is differentiable; the other sums are measurements.

    Args:
      features: [B, T, D].
      kernel: [D, V]; of split ones this device's columns, the last ones of the last device unused.
      bias: [V], or None.
      labels: int32 [B, T], y.
      mask: bool [B, T], True where a label counts.
      smoothing: e.
      vocabulary: V; left out, the columns of the kernel.
      axis: the devices that V is split over.
    """
    kind = _Kind(smoothing, kernel.shape[1] if vocabulary is None else vocabulary, axis)
    x, targets = _in_parts(
        collectives.copy_to_model_parallel(features, axis), labels, mask, kernel.shape[1]
    )
    return _by_parts(kind, (x, kernel, bias), targets)


def token_log_probs(
    features: Array,
    kernel: Array,
    bias: Array | None,
    labels: Array,
    mask: Array,
    vocabulary: int | None = None,
    axis: Axis | None = None,
) -> Array:
    """log p(y) = z_y - logsumexp(z) of each label y, with z = features @ kernel + bias.

    As in `cross_entropy`, logits exist for one part of the tokens at a time, and each device sees
    only its columns of them.

    Args:
      features, kernel, bias, labels, mask, vocabulary, axis: as in `cross_entropy`.

    Returns:
      float32 [B, T], nats; 0 where the mask is False.
    """
    kind = _Kind(0.0, kernel.shape[1] if vocabulary is None else vocabulary, axis)

    def part(operands: tuple[Array, Targets]) -> Array:
        x, targets = operands
        terms = _label_terms(kind, _logits(x, kernel, bias), targets.labels)
        return jnp.where(targets.mask, terms.at_label - terms.log_sum, 0)

    parts = jax.lax.map(part, _in_parts(features, labels, mask, kernel.shape[1]))
    return parts.reshape(-1)[: labels.size].reshape(labels.shape)


class Targets(NamedTuple):
    """labels: int32 [parts, N]. mask: bool [parts, N], False where a label does not count."""

    labels: Array
    mask: Array


def _in_parts(features: Array, labels: Array, mask: Array, columns: int) -> tuple[Array, Targets]:
    """Features [parts, N, D] and targets [parts, N], so that N x columns logits are few enough."""
    rows = labels.size
    part = max(1, min(rows, _CELLS // columns))
    empty = -rows % part
    x = jnp.pad(features.reshape(rows, -1), ((0, empty), (0, 0)))
    targets = Targets(
        *(jnp.pad(t.reshape(rows), (0, empty)).reshape(-1, part) for t in (labels, mask))
    )
    return x.reshape(-1, part, features.shape[-1]), targets


Operands = tuple[Array, Array, Array | None]
"""features [parts, N, D], kernel [D, V], bias [V] or None."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_parts(kind: _Kind, operands: Operands, targets: Targets) -> LossSums:
    x, kernel, bias = operands

    def add(sums: LossSums, part: tuple[Array, Targets]) -> tuple[LossSums, None]:
        new = _sums(kind, _logits(part[0], kernel, bias), part[1])[0]
        return LossSums(*map(jnp.add, sums, new)), None

    return jax.lax.scan(add, LossSums(*jnp.zeros(4)), (x, targets))[0]


def _forward(kind: _Kind, operands: Operands, targets: Targets) -> tuple[LossSums, Operands]:
    """The loss is a sum, so its gradient can be made beside it, but for one factor."""
    x, kernel, bias = operands

    def add(total: Any, part: tuple[Array, Targets]) -> tuple[Any, Array]:
        sums, of_kernel, of_bias = total
        x, targets = part
        z = _logits(x, kernel, bias)
        new, dz = _sums(kind, z, targets)
        if of_bias is not None:
            of_bias += dz.sum(0)
        dz = dz.astype(kernel.dtype)
        of_kernel += jnp.matmul(x.T, dz, preferred_element_type=jnp.float32)
        return (LossSums(*map(jnp.add, sums, new)), of_kernel, of_bias), dz @ kernel.T

    # Sums over many parts are float32, whatever the products are made of.
    nothing = jax.tree.map(lambda w: jnp.zeros(w.shape, jnp.float32), (kernel, bias))
    (sums, *of_weights), of_x = jax.lax.scan(add, (LossSums(*jnp.zeros(4)), *nothing), (x, targets))
    of_kernel, of_bias = jax.tree.map(lambda g, w: g.astype(w.dtype), of_weights, [kernel, bias])
    return sums, (of_x, of_kernel, of_bias)


def _backward(_: _Kind, gradients: Operands, cotangent: LossSums) -> tuple[Operands, None]:
    return jax.tree.map(lambda g: g * cotangent.loss.astype(g.dtype), gradients), None


_by_parts.defvjp(_forward, _backward)


def _logits(x: Array, kernel: Array, bias: Array | None) -> Array:
    z = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
    return z if bias is None else z + bias.astype(jnp.float32)


class _LabelTerms(NamedTuple):
    """What the log-probabilities of N labels are made of; all but z are those of the whole V.

    Attributes:
      z: this device's columns of the logits [N, V], -inf in columns beyond the vocabulary.
      used: which columns are in the vocabulary [V]; None where all are.
      is_label: where the label's column is [N, V].
      best, log_sum, at_label: maximum, logsumexp and label's entry of each row [N].
      sum: sum of each row [N]; 0 without label smoothing, which alone needs it.
    """

    z: Array
    used: Array | None
    is_label: Array
    best: Array
    log_sum: Array
    at_label: Array
    sum: Array


def _label_terms(kind: _Kind, z: Array, labels: Array) -> _LabelTerms:
    """Of this device's columns of the logits [N, V] and the labels int32 [N]."""
    smoothing, vocabulary, axis = kind
    columns = jnp.arange(z.shape[-1]) + collectives.axis_index(axis) * z.shape[-1]
    is_label = columns == labels[:, None]
    used = None if z.shape[-1] * collectives.axis_size(axis) == vocabulary else columns < vocabulary
    z = z if used is None else jnp.where(used, z, -jnp.inf)
    best = collectives.pmax(z.max(-1), axis)
    finite = z if used is None else jnp.where(used, z, 0)
    at_label = _label_logits(z, labels) if axis is None else jnp.where(is_label, finite, 0).sum(-1)
    exponents = jnp.exp(z - best[:, None]).sum(-1)
    sums = finite.sum(-1) if smoothing else jnp.zeros_like(exponents)
    exponents, at_label, sums = collectives.psum((exponents, at_label, sums), axis)
    return _LabelTerms(z, used, is_label, best, best + jnp.log(exponents), at_label, sums)


def _sums(kind: _Kind, z: Array, targets: Targets) -> tuple[LossSums, Array]:
    """The sums of logits [N, V] and targets [N], and dloss/dz = softmax(z) - q [N, V].

    Where V is split, dloss/dz is that of a device's columns; the sums are those of the whole V.
    """
    smoothing, vocabulary, _ = kind
    labels, real = targets
    z, used, is_label, best, log_sum, at_label, row_sum = _label_terms(kind, z, labels)
    loss = log_sum - (1 - smoothing) * at_label
    if smoothing:
        loss = loss - smoothing / vocabulary * row_sum
    sums = LossSums(
        loss=jnp.where(real, loss, 0).sum(),
        nll=jnp.where(real, log_sum - at_label, 0).sum(),
        correct=((at_label >= best) & real).sum(dtype=jnp.float32),
        tokens=real.sum(dtype=jnp.float32),
    )
    dz = jnp.exp(z - log_sum[:, None])
    dz = dz - smoothing / vocabulary - jnp.where(is_label, 1 - smoothing, 0)
    if used is not None:
        dz = jnp.where(used, dz, 0)
    return sums, jnp.where(real[:, None], dz, 0)


def _label_logits(z: Array, labels: Array) -> Array:
    return jnp.take_along_axis(z, labels[:, None], -1)[:, 0]
