"""The layers of a Transformer (Vaswani 2017): feed-forward, residual sums, and both layers.

Axes: see `encdec.types`. Every sub-layer is inside a residual sum with a norm: after the sum as in
the paper, LayerNorm(x + Dropout(Sublayer(x))), or before the sub-layer,
x + Dropout(Sublayer(LayerNorm(x))).

Where parameters are split over devices (Shoeybi 2019, section 3), each device has some of the heads
and some of the FFN hidden units: what enters them is copied, what leaves them is summed.

`precision` is that of the products; the residual sums and all else are float32.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

from encdec.config import TransformerConfig
from encdec.models.layers import COLUMNS, Dense, Dropout, glorot, split_init, zeros
from encdec.models.transformer_attention import Attention, KeyValue, append
from encdec.ops.products import kept
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
        past = append(past, KeyValue(*new), first_slot)
        x = self.add_norms[0].residual(x, self.self_attention.step(queries, past, mask, bias)[0])
        queries = self.cross_attention.queries(self.add_norms[1].pre_norm(x))
        whole = KeyValue(source.keys[:, None], source.values[:, None])  # one group
        y, attention = self.cross_attention.step(queries, whole, src_mask[:, None])
        return self._feed_forward(self.add_norms[1].residual(x, y)), attention, past

    def _feed_forward(self, x: Array) -> Array:
        """The last sub-layer: [B, T, D] -> [B, T, D]."""
        y = self.feed_forward(self.add_norms[2].pre_norm(x))
        return self.add_norms[2].residual(x, y)
