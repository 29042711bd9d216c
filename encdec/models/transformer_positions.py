"""Where a token stands: what a Transformer adds to embeddings or to attention scores.

Axes: see `encdec.types`.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from encdec.config import TransformerConfig
from encdec.data.batches import round_length
from encdec.models.layers import HEADS, split_init
from encdec.ops.positions import (
    relative_buckets,
    sinusoidal,
    sinusoidal_halves,
    sinusoidal_tensor2tensor,
)
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array, InputError

SINUSOIDS = {
    "sinusoidal": sinusoidal,
    "sinusoidal-halves": sinusoidal_halves,
    "sinusoidal-tensor2tensor": sinusoidal_tensor2tensor,
}


class PositionEncoding(nn.Module):
    """PE[position], computed or learned; nothing where positions are relative."""

    config: TransformerConfig

    def setup(self) -> None:
        """Declares the table of learned positions, [offset + max_positions, D]."""
        c = self.config
        if c.positions == "learned":
            rows = c.position_offset + c.max_positions
            init = nn.initializers.normal(c.width**-0.5)
            self.table = self.param("table", init, (rows, c.width))

    def __call__(self, embedded: Array, positions: Array, length: int) -> Array:
        """Adds the encodings to embeddings.

        Args:
          embedded: float [B, T, D].
          positions: int32, broadcastable to [B, T]; below `length`.
          length: static; how many positions there are.

        Raises:
          InputError: the table of learned positions has fewer.
        """
        c = self.config
        if c.positions == "relative":
            return embedded
        if c.positions == "learned":
            # Beyond the table JAX would read NaN. Only padding may be there.
            if length > round_length(c.max_positions):
                raise InputError(
                    f"{length} tokens, padding included, are more than the model's max_positions "
                    f"= {c.max_positions}: give shorter sentences, or limit their translations "
                    "(max_ratio, max_extra)"
                )
            rows = jnp.minimum(positions, c.max_positions - 1) + c.position_offset
            encodings = jnp.take(self.table, rows, axis=0)
        else:
            table = SINUSOIDS[c.positions](c.position_offset + length, c.width)
            encodings = jnp.asarray(table[c.position_offset :])[positions]
        return embedded + encodings


class RelativeBias(nn.Module):
    """A bias of the scores of self-attention for each head and bucket of distances (Raffel 2020).

    Attributes:
      config: number of buckets, largest distance, heads.
      bidirectional: keys may come after the query, as in the encoder.
      shards: the devices that the heads are split over, or None.
    """

    config: TransformerConfig
    bidirectional: bool
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares the table, [buckets, H]."""
        c = self.config
        init = split_init(nn.initializers.normal(c.width**-0.5), None, HEADS)
        heads = collectives.shard_size(c.heads, self.shards)
        self.table = self.param("table", init, (c.relative_buckets, heads))

    def __call__(self, length: int) -> Array:
        """The bias of all queries and keys of a sentence: [1, H, T, T] for length T."""
        places = np.arange(length)
        return self._of(self._buckets(places[None, :] - places[:, None]))

    def of_query(self, position: Array, length: int) -> Array:
        """The bias of the query at `position` and `length` keys: [1, H, 1, T]."""
        # The keys' distances from the query, -position ... length - 1 - position, are a window of
        # all distances that can be.
        buckets = jnp.asarray(self._buckets(np.arange(1 - length, length)))
        window = length - 1 - position + jnp.arange(length)
        return self._of(buckets[window][None])

    def _of(self, buckets: np.ndarray | Array) -> Array:
        """int32 [T, S] -> [1, H, T, S]."""
        return jnp.moveaxis(jnp.take(self.table, buckets, axis=0), -1, 0)[None]

    def _buckets(self, distances: np.ndarray) -> np.ndarray:
        c = self.config
        return relative_buckets(
            distances,
            buckets=c.relative_buckets,
            max_distance=c.relative_max_distance,
            bidirectional=self.bidirectional,
        )
