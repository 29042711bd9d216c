"""Cross-entropy over a vocabulary, in nats, without ever holding the logits of a whole batch.

Axes: see `encdec.types`. The B T tokens of a batch are worked through in parts of N tokens; at any
time only the logits [N, V] of one part exist.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.ops import int8
from encdec.ops.int8 import Int8
from encdec.ops.products import input_dtype, matmul
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array, Precision

_LOGIT_BYTES = 12
"""What a part needs for each logit: logits, their exponents and their gradient, float32."""


def part_rows(columns: int, *, is_cpu: bool, memory: int | None = None) -> int:
    """The most tokens of one part.

    The gradient of the kernel is read and written once for each part, so a part has rows enough
    that this is little beside its products, even where the vocabulary is large.

    Args:
      columns: logits of a token on this device.
      is_cpu: whether logits should stay in a cache, 16 MiB, rather than fill an accelerator.
      memory: bytes of this device, of which a part takes a quarter at most; None for enough.
    """
    rows = max(256, 2**22 // columns) if is_cpu else max(1024, 2**27 // columns)
    if memory is not None:
        rows = min(rows, memory // (4 * _LOGIT_BYTES * columns))
    return max(1, rows)


class LogitFactors(NamedTuple):
    """The output layer before its product: logits = features @ kernel + bias.

    The logits of a batch are the largest array of all, so the loss computes them part by part.

    Attributes:
      features: float32 [B, T, D].
      kernel: float32 [D, V], or its transpose as `Int8`.
      bias: float32 [V], or None.
    """

    features: Array
    kernel: Array | Int8
    bias: Array | None

    @property
    def matrix(self) -> Array:
        """The kernel, float32 [D, V]."""
        return self.kernel.matrix.T if isinstance(self.kernel, Int8) else self.kernel

    def logits(self, precision: Precision = "float32") -> Array:
        """float32 [B, T, V], by a product of this precision."""
        plain = partial(_logits, precision=precision)
        if isinstance(self.kernel, Int8) or self.bias is None or precision == "bfloat16":
            return plain(*self)  # the bias must not be rounded

        # A CPU would pass over all logits once more to add the bias, so there it is one more row of
        # the kernel. On other devices such a product has a bad shape, and nothing to win.
        def with_bias_as_row(features: Array, kernel: Array, bias: Array) -> Array:
            ones = jnp.ones((*features.shape[:-1], 1), features.dtype)
            features = jnp.concatenate([features, ones], -1)
            return matmul(features, jnp.concatenate([kernel, bias[None]]), precision)

        result: Array = jax.lax.platform_dependent(*self, cpu=with_bias_as_row, default=plain)
        return result


class LossSums(NamedTuple):
    """Sums over the target tokens of a batch, padding excluded; add them up, then divide.

    Attributes:
      loss: the training loss, label smoothing included, float32 [], nats.
      correct: number of tokens whose label has the highest logit, float32 [].
      tokens: number of tokens, float32 [].
    """

    loss: Array
    correct: Array
    tokens: Array


class _Kind(NamedTuple):
    """What is static: label smoothing e, V, the devices that V is split over, and the precision."""

    smoothing: float
    vocabulary: int
    axis: Axis | None
    precision: Precision


def cross_entropy(
    features: Array,
    kernel: Array,
    bias: Array | None,
    labels: Array,
    mask: Array,
    smoothing: float,
    vocabulary: int | None = None,
    axis: Axis | None = None,
    precision: Precision = "float32",
    rows: int | None = None,
) -> LossSums:
    """Label-smoothed cross-entropy (Szegedy 2016, section 7) of z = features @ kernel + bias.

    -sum_v q(v) log p(v) with q = (1 - e) [v = y] + e / V, which is
    logsumexp(z) - (1 - e) z_y - e mean(z). The forward pass computes the logits of one part of the
    tokens at a time, and their gradient with them. Where V is split over devices, a device never
    sees the logits of another: they exchange a maximum and three sums for each token.

    Only `loss` is differentiable; the other sums are measurements.

    Args:
      features: float32 [B, T, D].
      kernel: float32 [D, V]; where V is split, the columns of this device. All devices have equally
        many, so the last columns may lie beyond the vocabulary.
      bias: float32 [V], or None; split like the kernel.
      labels: int32 [B, T], y.
      mask: bool [B, T], False where a label does not count.
      smoothing: e.
      vocabulary: V; if None, the number of the kernel's columns.
      axis: the devices that V is split over, or None.
      precision: of the products with the kernel, and of their gradients.
      rows: the most tokens of a part, see `part_rows`; None for those of a CPU.
    """
    columns = kernel.shape[1] if vocabulary is None else vocabulary
    kind = _Kind(smoothing, columns, axis, precision)
    x, targets = _in_parts(
        collectives.copy_to_model_parallel(features, axis),
        labels,
        mask,
        rows or part_rows(kernel.shape[1], is_cpu=True),
    )
    return _by_parts(kind, (x, kernel, bias), targets)


def token_log_probs(
    features: Array,
    kernel: Array | Int8,
    bias: Array | None,
    labels: Array,
    mask: Array,
    vocabulary: int | None = None,
    axis: Axis | None = None,
    precision: Precision = "float32",
    rows: int | None = None,
) -> Array:
    """log p(y) = z_y - logsumexp(z) of each label y, with z = features @ kernel + bias.

    As in `cross_entropy`, logits exist for one part of the tokens at a time, and each device sees
    only its columns of them.

    Args:
      features, bias, labels, mask, vocabulary, axis, precision, rows: as in `cross_entropy`.
      kernel: as there, or its transpose as `Int8`.

    Returns:
      float32 [B, T], nats; 0 where the mask is False.
    """
    if isinstance(kernel, Int8):
        columns = len(kernel.values)
    else:
        columns = kernel.shape[1]
        kernel = kernel.astype(input_dtype(precision))
    kind = _Kind(0.0, columns if vocabulary is None else vocabulary, axis, precision)

    def part(operands: tuple[Array, Targets]) -> Array:
        x, targets = operands
        terms = _label_terms(kind, _logits(x, kernel, bias, precision), targets.labels)
        return jnp.where(targets.mask, terms.at_label - terms.log_sum, 0)

    rows = rows or part_rows(columns, is_cpu=True)
    parts = jax.lax.map(part, _in_parts(features, labels, mask, rows))
    return parts.reshape(-1)[: labels.size].reshape(labels.shape)


class Targets(NamedTuple):
    """labels: int32 [parts, N]. mask: bool [parts, N], False where a label does not count."""

    labels: Array
    mask: Array


def _in_parts(features: Array, labels: Array, mask: Array, most: int) -> tuple[Array, Targets]:
    """Features [parts, N, D] and targets [parts, N], with N at most `most`."""
    rows = labels.size
    parts = max(1, -(-rows // most))
    part = max(1, -(-rows // parts))
    empty = -rows % part  # rows added to the last part; their mask is False
    x = jnp.pad(features.reshape(rows, -1), ((0, empty), (0, 0)))
    targets = Targets(
        *(jnp.pad(t.reshape(rows), (0, empty)).reshape(-1, part) for t in (labels, mask))
    )
    return x.reshape(-1, part, features.shape[-1]), targets


Operands = tuple[Array, Array, Array | None]
"""features [parts, N, D], kernel [D, V], bias [V] or None; float32."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_parts(kind: _Kind, operands: Operands, targets: Targets) -> LossSums:
    x, kernel, bias = operands
    kernel = kernel.astype(input_dtype(kind.precision))  # once, not in each part

    def add(sums: LossSums, part: tuple[Array, Targets]) -> tuple[LossSums, None]:
        new = _sums(kind, _logits(part[0], kernel, bias, kind.precision), part[1])[0]
        return LossSums(*map(jnp.add, sums, new)), None

    return jax.lax.scan(add, LossSums(*jnp.zeros(3)), (x, targets))[0]


def _forward(kind: _Kind, operands: Operands, targets: Targets) -> tuple[LossSums, Operands]:
    """The sums, and the gradient of the loss, while the logits of each part exist.

    The loss is a scalar, so the backward pass only has to multiply this gradient by a number.
    """
    x, kernel, bias = operands
    rounded = kernel.astype(input_dtype(kind.precision))

    def add(total: Any, part: tuple[Array, Targets]) -> tuple[Any, Array]:
        sums, d_kernel, d_bias = total
        x, targets = part
        z = _logits(x, rounded, bias, kind.precision)
        new, dz = _sums(kind, z, targets)
        # z = x W + b: dW = x^T dz and db = sum dz add up over the parts, dx = dz W^T does not.
        if d_bias is not None:
            d_bias += dz.sum(0)
        d_kernel += matmul(x.T, dz, kind.precision)
        d_x = matmul(dz, rounded.T, kind.precision)
        return (LossSums(*map(jnp.add, sums, new)), d_kernel, d_bias), d_x

    zeros = jax.tree.map(jnp.zeros_like, (kernel, bias))
    (sums, *d_weights), d_x = jax.lax.scan(add, (LossSums(*jnp.zeros(3)), *zeros), (x, targets))
    return sums, (d_x, *d_weights)


def _backward(_: _Kind, gradients: Operands, cotangent: LossSums) -> tuple[Operands, None]:
    """Labels and their mask have no gradient."""
    return jax.tree.map(lambda g: g * cotangent.loss, gradients), None


_by_parts.defvjp(_forward, _backward)


def _logits(x: Array, kernel: Array | Int8, bias: Array | None, precision: Precision) -> Array:
    z = int8.matmul(x, kernel) if isinstance(kernel, Int8) else matmul(x, kernel, precision)
    return z if bias is None else z + bias


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
    smoothing, vocabulary, axis, _ = kind
    # Columns by their number in the whole vocabulary; those beyond it get no probability.
    columns = jnp.arange(z.shape[-1]) + collectives.axis_index(axis) * z.shape[-1]
    is_label = columns == labels[:, None]
    used = None if z.shape[-1] * collectives.axis_size(axis) == vocabulary else columns < vocabulary
    z = z if used is None else jnp.where(used, z, -jnp.inf)
    best = collectives.pmax(z.max(-1), axis)
    finite = z if used is None else jnp.where(used, z, 0)
    # Of a split vocabulary one device has the label's column; the others add 0 to the sum below.
    at_label = _label_logits(z, labels) if axis is None else jnp.where(is_label, finite, 0).sum(-1)
    exponents = jnp.exp(z - best[:, None]).sum(-1)
    sums = finite.sum(-1) if smoothing else jnp.zeros_like(exponents)
    exponents, at_label, sums = collectives.psum((exponents, at_label, sums), axis)
    return _LabelTerms(z, used, is_label, best, best + jnp.log(exponents), at_label, sums)


def _sums(kind: _Kind, z: Array, targets: Targets) -> tuple[LossSums, Array]:
    """The sums of logits [N, V] and targets [N], and dloss/dz = softmax(z) - q [N, V].

    Where V is split, dloss/dz is that of a device's columns; the sums are those of the whole V.
    """
    smoothing, vocabulary, *_ = kind
    labels, mask = targets
    z, used, is_label, best, log_sum, at_label, row_sum = _label_terms(kind, z, labels)
    loss = log_sum - (1 - smoothing) * at_label
    if smoothing:
        loss = loss - smoothing / vocabulary * row_sum
    sums = LossSums(
        loss=jnp.where(mask, loss, 0).sum(),
        correct=((at_label >= best) & mask).sum(dtype=jnp.float32),
        tokens=mask.sum(dtype=jnp.float32),
    )
    # softmax(z) - q, with q = e / V everywhere and 1 - e more at the label.
    dz = jnp.exp(z - log_sum[:, None])
    dz = dz - smoothing / vocabulary - jnp.where(is_label, 1 - smoothing, 0)
    if used is not None:
        dz = jnp.where(used, dz, 0)
    return sums, jnp.where(mask[:, None], dz, 0)


def _label_logits(z: Array, labels: Array) -> Array:
    """z[n, labels[n]] of each row n."""
    return jnp.take_along_axis(z, labels[:, None], -1)[:, 0]
