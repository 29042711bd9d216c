"""Layers that more than one system is made of.

Dropout is on when, and only when, `apply` is given a "dropout" key.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from encdec.ops import dropout as dropout_ops
from encdec.ops.recurrence import CELLS, Weights, initial, output, unroll
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array

glorot = nn.initializers.xavier_uniform()
"""Glorot and Bengio 2010, equation 16."""

zeros = nn.initializers.zeros

Dense = partial(nn.Dense, kernel_init=glorot)
"""y = x W + b; W Glorot uniform, b zero."""


HEADS, COLUMNS, VOCABULARY = "heads", "mlp", "vocabulary"
"""Logical axes of parameters: those that are split over devices which share a model's work."""


def split_init(init: Callable[..., Array], *axes: str | None) -> Callable[..., Any]:
    """An initialiser whose parameter declares its logical axes."""
    return nn.with_partitioning(init, axes)


class Embedding(nn.Module):
    """A row for each token, of variance 1/width: sqrt(width) times it has unit variance a feature.

    Attributes:
      vocabulary, width: of the whole.
      shards: devices that the rows are split over.
    """

    vocabulary: int
    width: int
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares the rows that this device holds."""
        init = split_init(nn.initializers.normal(self.width**-0.5), VOCABULARY, None)
        rows = collectives.shard_size(self.vocabulary, self.shards)
        self.embedding = self.param("embedding", init, (rows, self.width))

    def __call__(self, tokens: Array) -> Array:
        """int32 [...] -> [..., width]."""
        if self.shards is None:
            return jnp.take(self.embedding, tokens, axis=0)
        rows = self.embedding.shape[0]
        own = tokens - collectives.axis_index(self.shards) * rows
        found = jnp.take(self.embedding, jnp.clip(own, 0, rows - 1), axis=0)
        is_here = (own >= 0) & (own < rows)
        return collectives.reduce_from_model_parallel(
            jnp.where(is_here[..., None], found, 0), self.shards
        )


class Output(nn.Module):
    """The parameters of the last linear map: kernel [inputs, V] Glorot uniform, bias [V] zero.

    Each device holds the columns of its share of the vocabulary.
    """

    inputs: int
    vocabulary: int
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares both."""
        columns = collectives.shard_size(self.vocabulary, self.shards)
        kernel, bias = split_init(glorot, None, VOCABULARY), split_init(zeros, VOCABULARY)
        self.kernel = self.param("kernel", kernel, (self.inputs, columns))
        self.bias = self.param("bias", bias, (columns,))


def rate(own: float | None, common: float) -> float:
    """A dropout rate of its own, or the common one."""
    return common if own is None else own


class Dropout(nn.Module):
    """Dropout at a rate, when a "dropout" key is given (see `encdec.ops.dropout`).

    Attributes:
      rate: share dropped.
      shards: devices of which each holds other activations; None where they hold the same ones,
        which then must lose the same.
    """

    rate: float
    shards: Axis | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x: float, any shape."""
        if self.rate == 0 or not self.has_rng("dropout"):
            return x
        key = self.make_rng("dropout")
        if self.shards is not None:
            key = jax.random.fold_in(key, collectives.axis_index(self.shards))
        return dropout_ops.dropout(key, x, self.rate)

    def dropout_mask(self, dtype: Any, *shape: int) -> Array | None:
        """A dropout mask of a shape, to be used more than once; None where nothing is dropped."""
        return self(jnp.ones(shape, dtype)) if self.rate and self.has_rng("dropout") else None


def _gates_init(block: Callable[..., Array], gates: int) -> Callable[..., Array]:
    """Draws the block of each gate on its own: [n, gates * hidden]."""

    def init(key: Array, shape: tuple[int, int]) -> Array:
        blocks = [block(k, (shape[0], shape[1] // gates)) for k in jax.random.split(key, gates)]
        return jnp.concatenate(blocks, -1)

    return init


def _bias_init(cell: str, hidden: int) -> Callable[..., Array]:
    """Zero, but 1 for an LSTM's forget gate (Jozefowicz 2015)."""

    def init(_: Array, shape: tuple[int]) -> Array:
        bias = jnp.zeros(shape)
        return bias.at[hidden : 2 * hidden].set(1) if cell == "lstm" else bias

    return init


class Recurrent(nn.Module):
    """One recurrent layer.

    Matrices between states are orthogonal gate by gate (Saxe 2014), those from inputs Glorot
    uniform, biases as in `_bias_init`.

    Attributes:
      cell: "simple", "gru" or "lstm".
      inputs: width of the inputs.
      hidden: width of the state.
      reverse: from the last token to the first.
      recurrent_dropout: share of the last state dropped on its way into the cell.
    """

    cell: str
    inputs: int
    hidden: int
    reverse: bool = False
    recurrent_dropout: float = 0.0

    def setup(self) -> None:
        """Declares the parameters; a matrix that meets the last state keeps the cell's name."""
        cell = CELLS[self.cell]
        self.matrices = {
            name: self.param(
                name,
                _gates_init(nn.initializers.orthogonal(), gates),
                (self.hidden, gates * self.hidden),
            )
            for name, gates in cell.matrices.items()
        }
        width = cell.gates * self.hidden
        self.kernel = self.param("kernel", _gates_init(glorot, cell.gates), (self.inputs, width))
        self.bias = self.param("bias", _bias_init(self.cell, self.hidden), (width,))
        self.dropout = Dropout(self.recurrent_dropout)

    def weights(self) -> Weights:
        """The matrices that meet the last state, by the names that the cell's step uses."""
        return dict(self.matrices)

    def dropout_mask(self, *leading: int) -> Array | None:
        """The dropout mask of the last state for one pass, [*leading, hidden]."""
        return self.dropout.dropout_mask(self.kernel.dtype, *leading, self.hidden)

    def project(self, inputs: Array) -> Array:
        """x = W e + b for all time steps: [..., inputs] -> [..., G]."""
        return inputs @ self.kernel + self.bias

    def __call__(self, x: Array, mask: Array, carry: Any) -> tuple[Any, Array]:
        """Projected inputs [T, B, G], mask [T, B] -> (last state, outputs [T, B, hidden])."""
        dropout_mask = self.dropout_mask(x.shape[1])
        weights = self.weights()
        return unroll(
            self.cell, weights, carry, x, mask, dropout_mask=dropout_mask, reverse=self.reverse
        )

    def step(self, x: Array, carry: Any) -> tuple[Any, Array]:
        """One time step: projected [B, W, G] -> (state, output), each [B, W, hidden]."""
        weights = self.weights()
        carry = CELLS[self.cell].step(lambda name, u: u @ weights[name], carry, x)
        return carry, output(carry)


def zero_state(cell: str, x: Array, hidden: int) -> Any:
    """The state before the first of the inputs x [T, B, n], each array like x, [B, hidden]."""
    return initial(cell, jnp.zeros((x.shape[1], hidden), x.dtype))


def spread(carry: Any, beams: int) -> Any:
    """A state for each hypothesis: each array [B, ...] -> [B, W, ...]."""
    return jax.tree.map(
        lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], beams, *x.shape[1:])), carry
    )
