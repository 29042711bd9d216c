"""Multi-head attention of a Transformer (Vaswani 2017, section 3.2.2), of all positions or of one.

Axes: see `encdec.types`. With `shards`, H counts the heads of this device (Shoeybi 2019, section
3).
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from encdec.config import TransformerConfig
from encdec.models.layers import HEADS, Dropout, given_int8, split_init, zeros
from encdec.ops import flash_attention, int8, masks, packed_heads
from encdec.ops.attention import attend, dot_product_attention_weights
from encdec.ops.int8 import Int8
from encdec.ops.products import einsum, input_dtype, kept
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array, Precision


class KeyValue(NamedTuple):
    """Projected keys and values.

    Attributes:
      keys, values: float [B, S, H, K] where all positions are computed at once. A search, which
        reads them at each step, has keys [B, H, K, S] and values [B, H, S, K] of the source, and
        [B, G, H, K, T P] and [B, G, H, T P, K] of hypotheses, see `TransformerCache`.
    """

    keys: Array
    values: Array


class Attention(nn.Module):
    """Multi-head attention (section 3.2.2), Glorot uniform; without biases in the paper.

    With `shards`, H counts the heads of this device.
    """

    config: TransformerConfig
    shards: Axis | None = None
    precision: Precision = "float32"

    def setup(self) -> None:
        """Declares W^Q, W^K and W^V as [D, H, K], W^O as [H, K, D], and their biases, if any.

        As `Int8` they are [H K, D] and [D, H K].
        """
        c = self.config
        heads = (collectives.shard_size(c.heads, self.shards), c.width_of_head)
        uniform = partial(nn.initializers.variance_scaling, 1, "fan_avg", "uniform")
        # The fans are those of the matrices [D, H K] and [H K, D] of the paper.
        flat = split_init(uniform(in_axis=0, out_axis=(1, 2)), None, HEADS, None)
        joined = split_init(uniform(in_axis=(0, 1), out_axis=2), HEADS, None, None)
        names = ("wq", "wk", "wv", "wo")
        inits = ((flat, (c.width, *heads)),) * 3 + ((joined, (*heads, c.width)),)
        self.wq, self.wk, self.wv, self.wo = (
            self.param(name, *init) if (given := given_int8(self, name)) is None else given
            for name, init in zip(names, inits, strict=True)
        )
        self.bq = self.bk = self.bv = self.bo = None
        if c.biases == "all":
            self.bq, self.bk, self.bv = (
                self.param(name, split_init(zeros, HEADS, None), heads)
                for name in ("bq", "bk", "bv")
            )
            self.bo = self.param("bo", zeros, (c.width,))
        self.dropout = Dropout(c.attention_dropout, self.shards)

    def queries(self, x: Array) -> Array:
        """[B, T, D] -> [B, T, H, K]."""
        return _add(self._heads(x, self.wq), self.bq)

    def project(self, x: Array) -> KeyValue:
        """Keys and values [B, S, H, K] of [B, S, D]."""
        return KeyValue(
            _add(self._heads(x, self.wk), self.bk), _add(self._heads(x, self.wv), self.bv)
        )

    def project_all(self, x: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values, each [B, T, H, K], of the same [B, T, D], in one product."""
        axis = 0 if isinstance(self.wq, Int8) else 1  # of the heads
        kernel = jax.tree.map(lambda *each: jnp.concatenate(each, axis), self.wq, self.wk, self.wv)
        q, k, v = jnp.split(self._heads(x, kernel), 3, 2)
        return _add(q, self.bq), _add(k, self.bk), _add(v, self.bv)

    def _heads(self, x: Array, kernel: Array | Int8) -> Array:
        """[B, T, D] times [D, H, K] or Int8 [H K, D] -> [B, T, H, K]."""
        if isinstance(kernel, Int8):
            return int8.matmul(x, kernel).reshape(*x.shape[:2], -1, self.config.width_of_head)
        return einsum("btd,dhk->bthk", x, kernel, self.precision)

    def __call__(
        self, queries: Array, past: KeyValue, mask: Array | None, bias: Array | None = None
    ) -> Array:
        """softmax(Q K^T / sqrt(K) + bias) V, heads joined by W^O.

        The attention, float32 [B, H, T, S], is sown as "attention" into "intermediates". Flax keeps
        what is sown only where that collection is mutable.

        Args:
          queries: [B, T, H, K].
          past: keys and values [B, S, H, K].
          mask: bool [B, 1, 1, S], of the keys; None for the positions up to the query's own.
          bias: float, broadcastable to [B, H, T, S], of relative positions.

        Returns:
          [B, T, D].
        """
        queries, past = jax.tree.map(partial(kept, precision=self.precision), (queries, past))
        is_scaled = self.config.scale_scores
        has_maps = self.is_mutable_collection("intermediates") or self.dropout.is_active
        if has_maps or bias is not None:
            read = self._read_by_maps(queries, past, mask, bias)
        elif flash_attention.fits(queries, past.keys, self.precision):
            read = flash_attention.attend(queries, *past, mask, is_scaled=is_scaled)
        elif packed_heads.fits(queries):
            read = packed_heads.attend(
                queries, *past, mask, is_scaled=is_scaled, precision=self.precision
            )
        else:
            read = self._read_by_maps(queries, past, mask, bias)
        return self._join(kept(read, self.precision))

    def _read_by_maps(
        self, queries: Array, past: KeyValue, mask: Array | None, bias: Array | None
    ) -> Array:
        """What the heads read, [B, T, H, K]; their maps are sown and may have dropout."""
        if mask is None:
            mask = masks.causal(queries.shape[1])[None, None]  # [1, 1, T, T]
        attention = dot_product_attention_weights(
            queries,
            past.keys,
            mask,
            bias=bias,
            is_scaled=self.config.scale_scores,
            precision=self.precision,
        )
        self.sow("intermediates", "attention", attention)
        dropped = self.dropout(attention)
        return einsum("bhts,bshk->bthk", dropped, past.values, self.precision)

    def step(
        self, queries: Array, past: KeyValue, mask: Array, bias: Array | None = None
    ) -> tuple[Array, Array]:
        """As `__call__` for one position of each hypothesis, with the attention.

        Args:
          queries: [B, W, H, K].
          past: keys [B, G, H, K, N] and values [B, G, H, N, K]: W / G hypotheses after each other
            read the same; of the source G = 1.
          mask: bool, broadcastable to [B, G, H, W / G, N].
          bias: float, likewise.

        Returns:
          [B, W, D], and the attention float32 [B, W, H, N].
        """
        batch, beams, heads, width = queries.shape
        groups = past.keys.shape[1]
        split = queries.reshape(batch, groups, beams // groups, heads, width).swapaxes(2, 3)
        read, attention = attend(
            split,
            *past,
            mask,
            bias=bias,
            is_scaled=self.config.scale_scores,
            precision=self.precision,
        )

        def by_hypothesis(x: Array) -> Array:
            return x.swapaxes(2, 3).reshape(batch, beams, heads, -1)

        return self._join(by_hypothesis(read)), by_hypothesis(attention)

    def _join(self, heads: Array) -> Array:
        """[B, T, H, K] W^O + b."""
        if isinstance(self.wo, Int8):
            parts = int8.matmul(heads.reshape(*heads.shape[:2], -1), self.wo)
        else:
            parts = einsum("bthk,hkd->btd", heads, self.wo, self.precision)
        return _add(collectives.reduce_from_model_parallel(parts, self.shards), self.bo)


def for_search(x: KeyValue, precision: Precision) -> KeyValue:
    """Keys and values of all positions, [B, S, H, K], as a search has them: rounded already."""
    keys, values = jax.tree.map(lambda y: y.astype(input_dtype(precision)), x)
    return KeyValue(keys.transpose(0, 2, 3, 1), values.swapaxes(1, 2))


def _add(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + bias


def append(past: KeyValue, new: KeyValue, first_slot: Array) -> KeyValue:
    """`past` with new [B, W, H, K] written into W / G slots of each group, from `first_slot` on."""
    groups = past.keys.shape[1]
    batch, beams, heads, width = new.keys.shape

    def write(old: Array, one: Array, order: tuple[int, ...], axis: int) -> Array:
        split = one.reshape(batch, groups, beams // groups, heads, width).transpose(order)
        split = split.astype(old.dtype)
        return jax.lax.dynamic_update_slice_in_dim(old, split, first_slot, axis)

    # Without the barrier XLA on a CPU writes twice, once for what is kept and once for what is read
    # in this step, and copies all.
    keys, values = jax.lax.optimization_barrier(
        (
            write(past.keys, new.keys, (0, 1, 3, 4, 2), 4),
            write(past.values, new.values, (0, 1, 3, 2, 4), 3),
        )
    )
    return KeyValue(keys, values)
