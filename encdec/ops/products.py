"""Matrix products, and how precise they are on every device.

All products of the package are made here, so that a precision means the same in all of them. The
default of JAX depends on the device: float32 arrays are rounded to bfloat16 on a TPU and to
TensorFloat-32 on a GPU before they are multiplied.
"""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from encdec.types import Array, Precision

ALGORITHMS: dict[Precision, jax.lax.Precision] = {
    "float32": jax.lax.Precision.HIGHEST,
    "tf32": jax.lax.Precision.HIGH,  # three products of bfloat16 on a TPU
    "bfloat16": jax.lax.Precision.DEFAULT,
}
"""What XLA is asked for."""

KEPT = "kept"
"""The name of what `kept` returns, for policies of `jax.checkpoint`."""


def input_dtype(precision: Precision) -> Any:
    """The dtype of what is multiplied; sums and results are always float32."""
    return jnp.dtype("bfloat16" if precision == "bfloat16" else "float32")


def kept(x: Array, precision: Precision) -> Array:
    """x as products read it: what a layer keeps for its gradient, if it does not keep all.

    In bfloat16 x is rounded, and what is kept has half the size; its gradient is not rounded.

    Args:
      x: float32.
      precision: of the products; float32 to keep x as it is.

    Returns:
      float32, like x.
    """
    if precision != "bfloat16":
        return checkpoint_name(x, KEPT)
    result: Array = _rounded(x)
    return result


def _round(x: Array) -> Array:
    return checkpoint_name(x.astype(jnp.bfloat16), KEPT).astype(jnp.float32)


_rounded = jax.custom_vjp(_round)
_rounded.defvjp(lambda x: (_round(x), None), lambda _, gradient: (gradient,))


def matmul(x: Array, y: Array, precision: Precision) -> Array:
    """x @ y.

    Args:
      x: float [..., n].
      y: float [n, m]; or [..., n, m] with x [..., k, n] of as many axes.
      precision: of the product and of its gradients.

    Returns:
      float32 [..., m].
    """
    leading = "abcdefgh"[: x.ndim - 1]
    if y.ndim == 2:
        return einsum(f"{leading}n,nm->{leading}m", x, y, precision)
    return einsum(f"{leading}n,{leading[:-1]}nm->{leading}m", x, y, precision)


def einsum(spec: str, x: Array, y: Array, precision: Precision) -> Array:
    """Einstein's sum of a product of two arrays.

    In bfloat16 what is multiplied is rounded, here and in the gradients: those of x and y are
    float32 like all sums, so that they add up with others without a loss.

    Args:
      spec: as for `jnp.einsum`, with "->"; each letter of an input is in the other one or in the
        result.
      x, y: float arrays.
      precision: of the product and of its gradients.

    Returns:
      A float32 array.
    """
    if precision == "bfloat16":
        # Arrays that are bfloat16 already stay so: XLA removes such a pair of conversions.
        return _bfloat16_einsum(spec, x.astype(jnp.float32), y.astype(jnp.float32))
    return jnp.einsum(spec, x, y, precision=ALGORITHMS[precision])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bfloat16_einsum(spec: str, x: Array, y: Array) -> Array:
    return _rounded_einsum(spec, x, y)


def _forward(spec: str, x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    # What is kept for the gradients has half the size.
    kept = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    return _rounded_einsum(spec, *kept), kept


def _backward(spec: str, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    # z_c = sum x_a y_b has the gradients dx_a = sum dz_c y_b and dy_b = sum x_a dz_c.
    x, y = kept
    a, b, c = re.split(",|->", spec)
    return (
        _rounded_einsum(f"{c},{b}->{a}", gradient, y),
        _rounded_einsum(f"{a},{c}->{b}", x, gradient),
    )


_bfloat16_einsum.defvjp(_forward, _backward)


def _rounded_einsum(spec: str, x: Array, y: Array) -> Array:
    """The product of bfloat16 arrays; its sums are float32."""

    def product(x: Array, y: Array) -> Array:
        x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
        return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)

    def product_on_cpu(x: Array, y: Array) -> Array:
        # XLA refuses some of these products on a CPU, so rounded numbers are multiplied as float32.
        # Unlike a conversion to bfloat16 and back, this rounding is not optimized away.
        x, y = (jax.lax.reduce_precision(z.astype(jnp.float32), 8, 7) for z in (x, y))
        return jnp.einsum(spec, x, y, precision=jax.lax.Precision.HIGHEST)

    product_of_any: Array = jax.lax.platform_dependent(x, y, cpu=product_on_cpu, default=product)
    return product_of_any


def at_once(arrays: Any) -> Any:
    """The same pytree, of which nothing is used before all of it is computed.

    XLA would put off the gradients of matrices, which nothing waits for, to the end of the backward
    pass, and keep what they are products of until then.
    """
    return jax.lax.optimization_barrier(arrays)


@jax.custom_vjp
def with_gradients_at_once(arrays: Any) -> Any:
    """The same pytree, whose gradients are computed `at_once`."""
    return arrays


with_gradients_at_once.defvjp(
    lambda arrays: (arrays, None), lambda _, gradients: (at_once(gradients),)
)
