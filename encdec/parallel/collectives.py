"""What devices say to each other inside a step; on one device (axis None) nothing is said.

The transpose of a sum over devices is again a sum, so a block whose weights are split gets wrong
gradients when it is differentiated as it stands. `enter` and `leave` are the pair that makes them
right (Shoeybi 2019, "Megatron-LM", figure 3, f and g).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.types import Array


class Axis(NamedTuple):
    """Devices that share one kind of work.

    Attributes:
      name: of the mapped axis that holds all devices.
      size: devices that work together.
      groups: which do, as places on the mapped axis; None where all do.
    """

    name: str
    size: int
    groups: tuple[tuple[int, ...], ...] | None = None


class Axes(NamedTuple):
    """The two kinds of work that are split; None where one device does all of a kind.

    Attributes:
      data: devices with the same weights and different sentences.
      model: devices with the same sentences and different heads, columns and vocabulary rows.
    """

    data: Axis | None = None
    model: Axis | None = None


def size(axis: Axis | None) -> int:
    """Devices that work together."""
    return axis.size if axis else 1


def share(whole: int, axis: Axis | None) -> int:
    """What one of the devices holds of a whole; of one that does not divide, the last less."""
    return -(-whole // size(axis))


def index(axis: Axis | None) -> Array:
    """This device's place among those that it works with, int32 []."""
    if axis is None:
        return jnp.zeros((), jnp.int32)
    place = jax.lax.axis_index(axis.name)
    if axis.groups is None:
        return place
    devices = sorted((device, i) for group in axis.groups for i, device in enumerate(group))
    return jnp.asarray([i for _, i in devices], jnp.int32)[place]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def enter(x: Any, axis: Axis | None) -> Any:
    """Where all devices hand the same x to weights of their own: x, and its gradients summed."""
    return x


def _enter_forward(x: Any, axis: Axis | None) -> tuple[Any, None]:
    return x, None


def _enter_backward(axis: Axis | None, _: None, gradient: Any) -> tuple[Any]:
    return (total(gradient, axis),)


enter.defvjp(_enter_forward, _enter_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def leave(x: Any, axis: Axis | None) -> Any:
    """Where each device made a part of a sum: the sum, and its gradient as it is to each part."""
    return total(x, axis)


def _leave_forward(x: Any, axis: Axis | None) -> tuple[Any, None]:
    return total(x, axis), None


def _leave_backward(axis: Axis | None, _: None, gradient: Any) -> tuple[Any]:
    return (gradient,)


leave.defvjp(_leave_forward, _leave_backward)


def total(x: Any, axis: Axis | None) -> Any:
    """The sum over the devices of each array; not to be differentiated."""
    if axis is None:
        return x
    return jax.lax.psum(x, axis.name, axis_index_groups=axis.groups)


def highest(x: Array, axis: Axis | None) -> Array:
    """The elementwise maximum over the devices; not to be differentiated."""
    if axis is None:
        return x
    return jax.lax.pmax(x, axis.name, axis_index_groups=axis.groups)


def gathered(x: Array, axis: Axis | None, along: int) -> Array:
    """The devices' parts joined along an array axis; not to be differentiated."""
    if axis is None:
        return x
    return jax.lax.all_gather(
        x, axis.name, axis=along % x.ndim, tiled=True, axis_index_groups=axis.groups
    )


def scattered(x: Array, axis: Axis | None, along: int) -> Array:
    """The sum over the devices, of which each gets its part along an array axis."""
    if axis is None:
        return x
    return jax.lax.psum_scatter(
        x, axis.name, scatter_dimension=along, tiled=True, axis_index_groups=axis.groups
    )


# --- slices of an array, one a device ------------------------------------------------------------


def slice_axis(shape: tuple[int, ...], devices: int) -> int:
    """The array axis that slices are cut along: the first that divides, else the longest."""
    for axis, length in enumerate(shape):
        if length % devices == 0:
            return axis
    return max(range(len(shape)), key=lambda axis: shape[axis])


def padded_for_slices(x: Array, axis: Axis | None) -> tuple[Array, int]:
    """x with zeros at the end, so that it can be cut into slices of one size, and along what."""
    along = slice_axis(x.shape, size(axis))
    missing = -x.shape[along] % size(axis)
    widths = [(0, missing if i == along else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths), along


def own_slice(x: Array, axis: Axis | None) -> Array:
    """This device's slice of x."""
    padded, along = padded_for_slices(x, axis)
    rows = padded.shape[along] // size(axis)
    return jax.lax.dynamic_slice_in_dim(padded, index(axis) * rows, rows, along)


def rejoined(part: Array, whole: Array, axis: Axis | None) -> Array:
    """The devices' slices of an array shaped like `whole`, joined."""
    along = slice_axis(whole.shape, size(axis))
    return jax.lax.slice_in_dim(gathered(part, axis, along), 0, whole.shape[along], axis=along)
