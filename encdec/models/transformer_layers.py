"""The layers of a Transformer (Vaswani 2017): attention, feed-forward, residual sums.

Axes: see `encdec.types`. Every sub-layer is inside a residual sum with a norm: after the sum as in
the paper, LayerNorm(x + Dropout(Sublayer(x))), or before the sub-layer,
x + Dropout(Sublayer(LayerNorm(x))).

Where parameters are split over devices (Shoeybi 2019, section 3), each device has some of the heads
and some of the FFN hidden units: what enters them is copied, what leaves them is summed.

`precision` is that of the products; the residual sums and all else are float32.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from encdec.config import TransformerConfig
from encdec.models.layers import (
    COLUMNS,
    HEADS,
    Dense,
    Dropout,
    glorot,
    split_init,
    zeros,
)
from encdec.ops import flash_attention, masks, packed_heads
from encdec.ops.attention import attend, dot_product_attention_weights
from encdec.ops.products import einsum, input_dtype, kept
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array, Precision

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu-tanh": jax.nn.gelu,
    "silu": jax.nn.silu,
}


def make_norm(config: TransformerConfig) -> nn.Module:
    """The norm that the settings choose."""
    kind = nn.LayerNorm if config.norm_type == "layer" else nn.RMSNorm
    return kind(epsilon=config.norm_epsilon)


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
        """Declares W^Q, W^K and W^V as [D, H, K], W^O as [H, K, D], and their biases, if any."""
        c = self.config
        heads = (collectives.shard_size(c.heads, self.shards), c.width_of_head)
        uniform = partial(nn.initializers.variance_scaling, 1, "fan_avg", "uniform")
        # The fans are those of the matrices [D, H K] and [H K, D] of the paper.
        flat = split_init(uniform(in_axis=0, out_axis=(1, 2)), None, HEADS, None)
        joined = split_init(uniform(in_axis=(0, 1), out_axis=2), HEADS, None, None)
        self.wq, self.wk, self.wv = (
            self.param(name, flat, (c.width, *heads)) for name in ("wq", "wk", "wv")
        )
        self.wo = self.param("wo", joined, (*heads, c.width))
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
        return _add(einsum("btd,dhk->bthk", x, self.wq, self.precision), self.bq)

    def project(self, x: Array) -> KeyValue:
        """Keys and values [B, S, H, K] of [B, S, D]."""
        keys = einsum("bsd,dhk->bshk", x, self.wk, self.precision)
        values = einsum("bsd,dhk->bshk", x, self.wv, self.precision)
        return KeyValue(_add(keys, self.bk), _add(values, self.bv))

    def project_all(self, x: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values, each [B, T, H, K], of the same [B, T, D], in one product."""
        kernel = jnp.concatenate([self.wq, self.wk, self.wv], 1)
        q, k, v = jnp.split(einsum("btd,dhk->bthk", x, kernel, self.precision), 3, 2)
        return _add(q, self.bq), _add(k, self.bk), _add(v, self.bv)

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
        parts = einsum("bthk,hkd->btd", heads, self.wo, self.precision)
        return _add(collectives.reduce_from_model_parallel(parts, self.shards), self.bo)


def for_search(x: KeyValue, precision: Precision) -> KeyValue:
    """Keys and values of all positions, [B, S, H, K], as a search has them: rounded already."""
    keys, values = jax.tree.map(lambda y: y.astype(input_dtype(precision)), x)
    return KeyValue(keys.transpose(0, 2, 3, 1), values.swapaxes(1, 2))


def _add(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + bias


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2 (equation 2), or with another activation.

    If gated, (activation(x W_1 + b_1) * (x V + c)) W_2 + b_2 (Shazeer 2020, equation 6).
    """

    config: TransformerConfig
    shards: Axis | None = None
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., D] -> [..., D]."""
        c = self.config
        has_bias = c.biases != "none"
        project = partial(
            Dense,
            collectives.shard_size(c.feed_forward, self.shards),
            self.precision,
            use_bias=has_bias,
            kernel_init=split_init(glorot, None, COLUMNS),
            bias_init=split_init(zeros, COLUMNS),
        )
        hidden = kept(project(name="Dense_0")(x), self.precision)  # [..., F]
        hidden = ACTIVATIONS[c.activation](hidden)
        if c.gated:
            hidden = hidden * kept(project(name="linear")(x), self.precision)
        hidden = Dropout(c.activation_dropout, self.shards)(hidden)
        by_rows = split_init(glorot, COLUMNS, None)
        return Dense(
            c.width, self.precision, has_bias, by_rows, shards=self.shards, name="Dense_1"
        )(hidden)


class AddNorm(nn.Module):
    """The residual sum and norm around a sub-layer y.

    post-norm: x -> Norm(x + Dropout(y(x))); pre-norm: x -> x + Dropout(y(Norm(x))).
    """

    config: TransformerConfig
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares the norm."""
        self.norm = make_norm(self.config)
        self.dropout = Dropout(self.config.dropout)

    def pre_norm(self, x: Array) -> Array:
        """The sub-layer's input: x [..., D] itself, or its norm."""
        return collectives.copy_to_model_parallel(
            self.norm(x) if self.config.norm == "pre" else x, self.shards
        )

    def residual(self, x: Array, y: Array) -> Array:
        """The sum of x and the sub-layer's output y, each [..., D], normed in the paper's order."""
        joined = kept(x + self.dropout(y), "float32")
        return joined if self.config.norm == "pre" else self.norm(joined)


class EncoderLayer(nn.Module):
    """Self-attention, feed-forward."""

    config: TransformerConfig
    shards: Axis | None = None
    precision: Precision = "float32"

    def setup(self) -> None:
        """Declares both sub-layers."""
        common = (self.config, self.shards)
        self.attention = Attention(*common, self.precision)
        self.feed_forward = FeedForward(*common, self.precision)
        self.add_norms = [AddNorm(*common) for _ in range(2)]

    def __call__(self, x: Array, mask: Array, bias: Array | None = None) -> Array:
        """x [B, S, D], mask bool [B, 1, 1, S], bias of the scores [1, H, S, S] -> [B, S, D]."""
        around_attention, around_feed_forward = self.add_norms
        inner = around_attention.pre_norm(x)
        queries, past = self.attention.queries(inner), self.attention.project(inner)
        x = around_attention.residual(x, self.attention(queries, past, mask, bias))
        return around_feed_forward.residual(x, self.feed_forward(around_feed_forward.pre_norm(x)))


class DecoderLayer(nn.Module):
    """Masked self-attention, encoder-decoder attention, feed-forward."""

    config: TransformerConfig
    shards: Axis | None = None
    precision: Precision = "float32"

    def setup(self) -> None:
        """Declares the three sub-layers."""
        common = (self.config, self.shards)
        self.self_attention = Attention(*common, self.precision)
        self.cross_attention = Attention(*common, self.precision)
        self.feed_forward = FeedForward(*common, self.precision)
        self.add_norms = [AddNorm(*common) for _ in range(3)]

    def __call__(
        self, x: Array, source: Array, src_mask: Array, bias: Array | None = None
    ) -> Array:
        """All target positions.

        Args:
          x: [B, T, D].
          source: the encoder's output [B, S, D].
          src_mask: bool [B, 1, 1, S].
          bias: of the scores of self-attention, [1, H, T, T]; None for 0.

        Returns:
          [B, T, D].
        """
        inner = self.add_norms[0].pre_norm(x)
        queries, past = self.self_attention.queries(inner), self.self_attention.project(inner)
        x = self.add_norms[0].residual(x, self.self_attention(queries, past, None, bias))
        queries = self.cross_attention.queries(self.add_norms[1].pre_norm(x))
        keys = self.cross_attention.project(source)
        x = self.add_norms[1].residual(x, self.cross_attention(queries, keys, src_mask))
        return self._feed_forward(x)

    def step(
        self,
        x: Array,
        source: KeyValue,
        src_mask: Array,
        past: KeyValue,
        mask: Array,
        first_slot: Array,
        bias: Array | None = None,
    ) -> tuple[Array, Array, KeyValue]:
        """One target position of each hypothesis.

        Args:
          x: [B, W, D].
          source: of the source, as `for_search` returns it.
          src_mask: bool [B, 1, 1, S].
          past: keys [B, G, H, K, T P], values [B, G, H, T P, K], see `TransformerCache`.
          mask: bool, broadcastable to [B, G, H, P, T P], of the slots that each hypothesis reads.
          first_slot: int32 [], of those that the hypotheses of this step write.
          bias: of the scores of self-attention, [1, 1, H, 1, T P]; None for 0.

        Returns:
          [B, W, D], the encoder-decoder attention [B, W, H, S], and `past` with this token's keys
          and values.
        """
        queries, *new = self.self_attention.project_all(self.add_norms[0].pre_norm(x))
        past = _append(past, KeyValue(*new), first_slot)
        x = self.add_norms[0].residual(x, self.self_attention.step(queries, past, mask, bias)[0])
        queries = self.cross_attention.queries(self.add_norms[1].pre_norm(x))
        whole = KeyValue(source.keys[:, None], source.values[:, None])  # one group
        y, attention = self.cross_attention.step(queries, whole, src_mask[:, None])
        return self._feed_forward(self.add_norms[1].residual(x, y)), attention, past

    def _feed_forward(self, x: Array) -> Array:
        """The last sub-layer: [B, T, D] -> [B, T, D]."""
        y = self.feed_forward(self.add_norms[2].pre_norm(x))
        return self.add_norms[2].residual(x, y)


def _append(past: KeyValue, new: KeyValue, first_slot: Array) -> KeyValue:
    """past with new [B, W, H, K] written into W / G slots of each group, from `first_slot` on."""
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
