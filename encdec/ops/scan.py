"""A scan of a recurrent step in which the gradient of each matrix is one matrix product.

Axes: see `encdec.types`. T counts the steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from encdec.ops import products
from encdec.types import Array, Precision

Matmul = Callable[[str, Array], Array]
"""matmul(name, u) = u @ weights[name], float32."""
Weights = dict[str, Array]
"""Matrices by name."""


class Step(Protocol):
    """One time step: step(matmul, consts, carry, x) -> (carry, y)."""

    def __call__(self, matmul: Matmul, consts: Any, carry: Any, x: Any, /) -> tuple[Any, Any]: ...


_KEPT = "kept"


def keep(x: Array) -> Array:
    """The same array, marked: `scan` keeps it of all steps, [T, ...], for the gradient.

    A step marks the fewest arrays from which the rest follows without a matrix product.
    """
    marked: Array = checkpoint_name(x, _KEPT)
    return marked


# Plain differentiation of a scan adds up each matrix's gradient in T products of a few rows each:
#   dL/dM = sum_t u_t^T (dL/dp_t),  where p_t = u_t M is the product of step t.
# The gradient below stores all u_t in the forward pass, obtains all dL/dp_t in the backward pass,
# and computes the sum as one product with T times as many rows, whose sums are float32.
#
# Of the rest of a step, plain differentiation stores each factor of each derivative: for an LSTM
# eleven arrays [T, B, hidden] besides h(t-1). The scan below keeps the carry, the products, and
# what the step marks with `keep`, and computes all else from them again in the backward pass. Where
# x_t + p_t is marked, p_t is not needed: an LSTM keeps its four gates before their sigmoids, c(t-1)
# and h(t-1).
@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def scan(
    step: Step,
    reverse: bool,
    precision: Precision,
    weights: Weights,
    consts: Any,
    carry: Any,
    xs: Any,
) -> tuple[Any, Any]:
    """`jax.lax.scan` in which the gradient of each matrix is one matrix product.

    Args:
      step: static; see `Step`. It must use every name in `weights` exactly once, and the matrices
        only through `matmul`. See `keep` for what it may mark.
      reverse: static; whether to scan from the last time step to the first.
      precision: static; of the products with the matrices, and of their gradients.
      weights: matrices float32 [n, m], or [B, n, m] for products with an axis B.
      consts: a pytree of arrays that are the same at every step.
      carry: the initial carry.
      xs: a pytree of arrays with leading axis T.

    Returns:
      The final carry, and y of all steps with leading axis T.
    """

    rounded = _rounded(weights, precision)

    def matmul(name: str, u: Array) -> Array:
        return products.matmul(u, rounded[name], precision)

    def body(carry: Any, x: Any) -> tuple[Any, Any]:
        return step(matmul, consts, carry, x)

    return jax.lax.scan(body, carry, xs, reverse=reverse)


def _rounded(arrays: Weights, precision: Precision) -> Weights:
    """What is multiplied in many steps, rounded once."""
    return jax.tree.map(lambda x: x.astype(products.input_dtype(precision)), arrays)


def _scan_forward(
    step: Step,
    reverse: bool,
    precision: Precision,
    weights: Weights,
    consts: Any,
    carry: Any,
    xs: Any,
) -> tuple[Any, Any]:
    rounded = _rounded(weights, precision)

    # A zero is added to each product p_t; the gradient of the loss with respect to that zero is
    # dL/dp_t. The matrices are closed over: differentiation does not reach them here.
    def run(consts: Any, carry: Any, xs: Any, zeros: Weights) -> tuple[Any, Any]:
        def body(carry: Any, x_and_zeros: Any) -> tuple[Any, Any]:
            x, zero = x_and_zeros
            factors: Weights = {}  # u_t of each product

            def matmul(name: str, u: Array) -> Array:
                factors[name] = jax.lax.stop_gradient(u)
                product = products.matmul(u, rounded[name], precision)
                return keep(product + zero[name].astype(product.dtype))

            carry, y = step(matmul, consts, carry, x)
            return carry, (y, _rounded(factors, precision))

        # The steps of the gradient are another loop than those of the values: XLA cannot merge the
        # two computations, and nothing need prevent it.
        body = jax.checkpoint(
            body,
            prevent_cse=False,
            policy=jax.checkpoint_policies.save_only_these_names(_KEPT),
        )
        carry, (ys, factors) = jax.lax.scan(body, carry, (xs, zeros), reverse=reverse)
        return (carry, ys), factors

    zeros = _zero_products(step, precision, weights, consts, carry, xs)
    result, pullback, factors = jax.vjp(run, consts, carry, xs, zeros, has_aux=True)
    return result, (pullback, factors, weights)


def _zero_products(
    step: Step, precision: Precision, weights: Weights, consts: Any, carry: Any, xs: Any
) -> Weights:
    """Zeros shaped like the products of all steps, [T, ...], by the name of the matrix.

    They, and so dL/dp_t, are rounded as dL/dp_t is for the products that it is a factor of.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def record_shapes(x: Any) -> None:
        def matmul(name: str, u: Array) -> Array:
            product = products.matmul(u, weights[name], "float32")
            shapes[name] = product.shape
            return product

        step(matmul, consts, carry, x)

    # Traces one step without computing anything.
    jax.eval_shape(record_shapes, jax.tree.map(lambda x: x[0], xs))
    length = jax.tree.leaves(xs)[0].shape[0]
    dtype = products.input_dtype(precision)
    return {name: jnp.zeros((length, *shape), dtype) for name, shape in shapes.items()}


def _scan_backward(
    step: Step, reverse: bool, precision: Precision, residuals: Any, cotangent: Any
) -> tuple[Any, ...]:
    pullback, factors, weights = residuals
    d_consts, d_carry, d_xs, d_products = pullback(cotangent)

    # The transpose of all T products with one matrix is the sum over t in the comment above; vjp
    # derives it for [n, m] and for [B, n, m] alike.
    def all_products(weight: Array, name: str) -> Array:
        matmul = partial(products.matmul, precision=precision)
        return jax.vmap(matmul, (0, None))(factors[name], weight)

    def d_product(name: str) -> Array:
        return d_products[name].astype(jnp.float32)

    d_weights = {
        name: jax.vjp(partial(all_products, name=name), weight)[1](d_product(name))[0]
        for name, weight in weights.items()
    }
    return products.at_once((d_weights, d_consts, d_carry, d_xs))


scan.defvjp(_scan_forward, _scan_backward)
