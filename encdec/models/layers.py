"""Layers that more than one family uses.

Dropout is on when, and only when, `apply` is given a "dropout" key.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from encdec.ops import dropout as dropout_ops
from encdec.ops import int8
from encdec.ops.int8 import Int8
from encdec.ops.products import matmul, with_gradients_at_once
from encdec.ops.recurrence import CELLS, CellConstants, initial, output, unroll, with_constants
from encdec.ops.scan import Weights
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array, Params, Precision

glorot = nn.initializers.xavier_uniform()
"""Glorot and Bengio 2010, equation 16."""

zeros = nn.initializers.zeros

HEADS, COLUMNS, VOCABULARY = "heads", "mlp", "vocabulary"
"""Logical axes of parameters that can be split over the devices of a model group."""


def split_init(init: Callable[..., Array], *axes: str | None) -> Callable[..., Any]:
    """An initializer for a parameter with these logical axes; None for an axis that stays whole."""
    return nn.with_partitioning(init, axes)


_VALUES, _SCALES = "_values", "_scales"
"""What the names of an `Int8` end with, which replaces a matrix or, of an embedding, joins it."""


def int8_params(name: str, matrix: np.ndarray) -> Params:
    """The parameters of a module that has a matrix [outputs, inputs] as `Int8`.

    Args:
      name: that of the parameter.
      matrix: float [outputs, inputs].
    """
    values, scales = int8.quantize(matrix)
    return {name + _VALUES: values, name + _SCALES: scales}


def given_int8(module: nn.Module, name: str) -> Int8 | None:
    """The `Int8` [outputs, inputs] that a module was given for a parameter, or None."""
    if not module.has_variable("params", name + _VALUES):
        return None
    return Int8(*(module.get_variable("params", name + end) for end in (_VALUES, _SCALES)))


class Dense(nn.Module):
    """y = x W + b, float32; W Glorot uniform, b zero.

    Attributes:
      features: width of y.
      precision: of the product.
      use_bias: whether there is a b.
      kernel_init, bias_init: initializers.
      shards: the devices that the rows of W are split over, which all have b; None where W is whole
        or split by columns.
    """

    features: int
    precision: Precision = "float32"
    use_bias: bool = True
    kernel_init: Callable[..., Any] = glorot
    bias_init: Callable[..., Any] = zeros
    shards: Axis | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., inputs] -> float32 [..., features]."""
        if (rows := given_int8(self, "kernel")) is not None:
            y = int8.matmul(x, rows)
        else:
            kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
            y = matmul(x, kernel, self.precision)
        y = collectives.reduce_from_model_parallel(y, self.shards)
        return y + self.param("bias", self.bias_init, (self.features,)) if self.use_bias else y


class Embedding(nn.Module):
    """A row of variance 1/width for each token: times sqrt(width), each feature has variance 1.

    Attributes:
      vocabulary, width: rows and columns of the whole matrix.
      shards: the devices that the rows are split over, or None.
    """

    vocabulary: int
    width: int
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares the rows that this device holds."""
        init = split_init(nn.initializers.normal(self.width**-0.5), VOCABULARY, None)
        rows = collectives.shard_size(self.vocabulary, self.shards)
        self.embedding = self.param("embedding", init, (rows, self.width))
        self.int8 = given_int8(self, "embedding")  # for where it is the output layer as well

    def __call__(self, tokens: Array) -> Array:
        """int32 [...] -> float32 [..., width]."""
        if self.shards is None:
            return jnp.take(self.embedding, tokens, axis=0)
        # Each device looks up the tokens whose rows it holds and puts 0 for the others; the sum
        # over the devices then is the row of every token.
        rows = self.embedding.shape[0]
        local = tokens - collectives.axis_index(self.shards) * rows
        embedded = jnp.take(self.embedding, jnp.clip(local, 0, rows - 1), axis=0)
        is_local = (local >= 0) & (local < rows)
        return collectives.reduce_from_model_parallel(
            jnp.where(is_local[..., None], embedded, 0), self.shards
        )


class OutputBias(nn.Module):
    """The bias of the output layer, [V], zero.

    Attributes:
      vocabulary: columns of the whole output layer.
      shards: the devices that the columns are split over, or None.
    """

    vocabulary: int
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares the columns that this device holds."""
        columns = collectives.shard_size(self.vocabulary, self.shards)
        self.bias = self.param("bias", split_init(zeros, VOCABULARY), (columns,))


class Output(nn.Module):
    """The parameters of the output layer: kernel [inputs, V] Glorot uniform, bias [V] zero.

    Attributes:
      inputs, vocabulary: rows and columns of the whole kernel.
      shards: the devices that the columns are split over, or None.
      has_bias: False leaves the bias out; it is None then.
    """

    inputs: int
    vocabulary: int
    shards: Axis | None = None
    has_bias: bool = True

    def setup(self) -> None:
        """Declares the columns that this device holds."""
        columns = collectives.shard_size(self.vocabulary, self.shards)
        kernel, bias = split_init(glorot, None, VOCABULARY), split_init(zeros, VOCABULARY)
        self.kernel: Any = given_int8(self, "kernel")
        if self.kernel is None:
            self.kernel = self.param("kernel", kernel, (self.inputs, columns))
        self.bias = self.param("bias", bias, (columns,)) if self.has_bias else None


def rate(specific: float | None, common: float) -> float:
    """The dropout rate that is set for one place, or else the common one."""
    return common if specific is None else specific


class Dropout(nn.Module):
    """Dropout where `apply` is given a "dropout" key (see `encdec.ops.dropout`).

    Attributes:
      rate: probability that an activation is dropped.
      shards: the devices that the activations are split over, each of which draws its own mask;
        None where all devices hold the same activations and so need the same mask.
    """

    rate: float
    shards: Axis | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x: float, any shape."""
        if not self.is_active:
            return x
        key = self.make_rng("dropout")
        if self.shards is not None:
            key = jax.random.fold_in(key, collectives.axis_index(self.shards))
        return dropout_ops.dropout(key, x, self.rate)

    def dropout_mask(self, dtype: Any, *shape: int) -> Array | None:
        """A mask to multiply activations by more than once, or None without dropout."""
        return self(jnp.ones(shape, dtype)) if self.is_active else None

    @property
    def is_active(self) -> bool:
        """Whether anything is dropped."""
        return self.rate > 0 and self.has_rng("dropout")


def _gates_init(block: Callable[..., Array], gates: int) -> Callable[..., Array]:
    """Draws the block [n, hidden] of each gate separately: [n, gates * hidden]."""

    def init(key: Array, shape: tuple[int, int]) -> Array:
        blocks = [block(k, (shape[0], shape[1] // gates)) for k in jax.random.split(key, gates)]
        return jnp.concatenate(blocks, -1)

    return init


class Recurrent(nn.Module):
    """One recurrent layer.

    The matrix of each gate is orthogonal between states (Saxe 2014) and Glorot uniform between
    inputs and state; biases are as the cell says.

    Attributes:
      cell: a name in `encdec.ops.recurrence.CELLS`.
      inputs: width of the inputs.
      hidden: width of the state.
      reverse: reads from the last token to the first.
      recurrent_dropout: dropout rate of the previous state where it enters the cell.
      precision: of all products; the state is float32.
    """

    cell: str
    inputs: int
    hidden: int
    reverse: bool = False
    recurrent_dropout: float = 0.0
    precision: Precision = "float32"

    def setup(self) -> None:
        """Declares the parameters; the matrices of the state have the names the cell gives."""
        cell = CELLS[self.cell]
        self.matrices = {
            name: self.param(
                name,
                _gates_init(nn.initializers.orthogonal(), gates),
                (self.hidden, gates * self.hidden),
            )
            for name, gates in cell.matrices.items()
        }
        shape = (self.inputs, cell.gates * self.hidden)
        self.kernel = self.param("kernel", _gates_init(glorot, cell.gates), shape)
        self.bias = self.param("bias", lambda _: jnp.repeat(jnp.array(cell.bias), self.hidden))
        self.recurrent_bias = None
        if cell.has_recurrent_bias:
            width = (cell.matrices["recurrent"] * self.hidden,)
            self.recurrent_bias = self.param("recurrent_bias", zeros, width)
        self.dropout = Dropout(self.recurrent_dropout)

    def weights(self) -> Weights:
        """The matrices of the state, by the names that the cell's step uses."""
        return dict(self.matrices)

    def constants(self, *leading: int) -> CellConstants:
        """What the cell needs for a whole sentence; a dropout mask is [*leading, hidden]."""
        dropout_mask = self.dropout.dropout_mask(self.kernel.dtype, *leading, self.hidden)
        return CellConstants(dropout_mask, self.recurrent_bias)

    def project(self, inputs: Array) -> Array:
        """x = W e + b for all time steps at once: [..., inputs] -> [..., G]."""
        inputs, kernel, bias = with_gradients_at_once((inputs, self.kernel, self.bias))
        return matmul(inputs, kernel, self.precision) + bias

    def __call__(self, x: Array, mask: Array, carry: Any) -> tuple[Any, Array]:
        """All time steps.

        Args:
          x: projected inputs [T, B, G].
          mask: bool [T, B]; padding leaves the state unchanged.
          carry: the state before the first step, arrays [B, hidden].

        Returns:
          The state after the last step, and the output of each, [T, B, hidden].
        """
        constants, weights = self.constants(x.shape[1]), self.weights()
        return unroll(
            self.cell,
            weights,
            carry,
            x,
            mask,
            constants=constants,
            reverse=self.reverse,
            precision=self.precision,
        )

    def step(self, x: Array, carry: Any) -> tuple[Any, Array]:
        """One time step: projected input [B, W, G] -> (state, output), each [B, W, hidden]."""
        weights = self.weights()

        def product(name: str, u: Array) -> Array:
            return matmul(u, weights[name], self.precision)

        carry = CELLS[self.cell].step(with_constants(product, self.constants()), carry, x)
        return carry, output(carry)


def zero_state(cell: str, x: Array, hidden: int) -> Any:
    """The zero state before inputs x [T, B, n]: arrays [B, hidden] with the dtype of x."""
    return initial(cell, jnp.zeros((x.shape[1], hidden), x.dtype))


def spread(carry: Any, beams: int) -> Any:
    """Repeats a state for each hypothesis: each array [B, ...] -> [B, W, ...]."""
    return jax.tree.map(
        lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], beams, *x.shape[1:])), carry
    )
