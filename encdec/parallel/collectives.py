"""What devices say to each other inside a step; on one device (axis None) nothing is said.

The transpose of a sum over devices is again a sum, so a block whose weights are split gets wrong
gradients when it is differentiated as it stands. `copy_to_model_parallel` and
`reduce_from_model_parallel` are the pair that makes them right (Shoeybi 2019, "Megatron-LM",
figure 3, f and g).
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


def axis_size(axis: Axis | None) -> int:
    """Devices that work together."""
    return axis.size if axis else 1


def shard_size(whole: int, axis: Axis | None) -> int:
    """What one of the devices holds of a whole; of one that does not divide, the last less."""
    return -(-whole // axis_size(axis))


def axis_index(axis: Axis | None) -> Array:
    """This device's place among those that it works with, int32 []."""
    if axis is None:
        return jnp.zeros((), jnp.int32)
    place = jax.lax.axis_index(axis.name)
    if axis.groups is None:
        return place
    devices = sorted((device, i) for group in axis.groups for i, device in enumerate(group))
    return jnp.asarray([i for _, i in devices], jnp.int32)[place]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def copy_to_model_parallel(x: Any, axis: Axis | None) -> Any:
    """Where all devices hand the same x to weights of their own: x, and its gradients summed."""
    return x


def _copy_forward(x: Any, axis: Axis | None) -> tuple[Any, None]:
    return x, None


def _copy_backward(axis: Axis | None, _: None, gradient: Any) -> tuple[Any]:
    return (psum(gradient, axis),)


copy_to_model_parallel.defvjp(_copy_forward, _copy_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def reduce_from_model_parallel(x: Any, axis: Axis | None) -> Any:
    """Where each device made a part of a sum: the sum, and its gradient as it is to each part."""
    return psum(x, axis)


def _reduce_forward(x: Any, axis: Axis | None) -> tuple[Any, None]:
    return psum(x, axis), None


def _reduce_backward(axis: Axis | None, _: None, gradient: Any) -> tuple[Any]:
    return (gradient,)


reduce_from_model_parallel.defvjp(_reduce_forward, _reduce_backward)


def psum(x: Any, axis: Axis | None) -> Any:
    """The sum over the devices of each array; not to be differentiated."""
    if axis is None:
        return x
    return jax.lax.psum(x, axis.name, axis_index_groups=axis.groups)


def pmax(x: Array, axis: Axis | None) -> Array:
    """The elementwise maximum over the devices; not to be differentiated."""
    if axis is None:
        return x
    return jax.lax.pmax(x, axis.name, axis_index_groups=axis.groups)


def all_gather(x: Array, axis: Axis | None, along: int) -> Array:
    """The devices' parts joined along an array axis; not to be differentiated."""
    if axis is None:
        return x
    return jax.lax.all_gather(
        x, axis.name, axis=along % x.ndim, tiled=True, axis_index_groups=axis.groups
    )


def reduce_scatter(x: Array, axis: Axis | None, along: int) -> Array:
    """The sum over the devices, of which each gets its part along an array axis."""
    if axis is None:
        return x
    return jax.lax.psum_scatter(
        x, axis.name, scatter_dimension=along, tiled=True, axis_index_groups=axis.groups
    )


# --- slices of an array, one a device ------------------------------------------------------------


def shard_axis(shape: tuple[int, ...], devices: int) -> int:
    """The array axis that slices are cut along: the first that divides, else the longest."""
    for axis, length in enumerate(shape):
        if length % devices == 0:
            return axis
    return max(range(len(shape)), key=lambda axis: shape[axis])


def padded_for_shards(x: Array, axis: Axis | None) -> tuple[Array, int]:
    """x with zeros at the end, so that it can be cut into slices of one size, and along what."""
    along = shard_axis(x.shape, axis_size(axis))
    missing = -x.shape[along] % axis_size(axis)
    widths = [(0, missing if i == along else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths), along


def local_shard(x: Array, axis: Axis | None) -> Array:
    """This device's slice of x."""
    padded, along = padded_for_shards(x, axis)
    rows = padded.shape[along] // axis_size(axis)
    return jax.lax.dynamic_slice_in_dim(padded, axis_index(axis) * rows, rows, along)


def all_gather_shards(part: Array, whole: Array, axis: Axis | None) -> Array:
    """The devices' slices of an array shaped like `whole`, joined."""
    along = shard_axis(whole.shape, axis_size(axis))
    return jax.lax.slice_in_dim(all_gather(part, axis, along), 0, whole.shape[along], axis=along)
