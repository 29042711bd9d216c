"""Communication between the devices inside a mapped step. With axis None each is the identity.

JAX's transpose of a sum over devices is again a sum over devices. A block whose weights are split
over devices would therefore get wrong gradients if it used `jax.lax.psum` directly.
`copy_to_model_parallel` and `reduce_from_model_parallel` are the conjugate pair around such a block
that gives the right ones (Shoeybi 2019, figure 3, f and g).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.types import Array


class Axis(NamedTuple):
    """Groups of devices within the mapped axis; a collective communicates within each group.

    Attributes:
      name: of the mapped axis, which holds all devices.
      size: devices in a group.
      groups: the device indices of each group; None for one group of all devices.
    """

    name: str
    size: int
    groups: tuple[tuple[int, ...], ...] | None = None


class Axes(NamedTuple):
    """The two ways in which a step is split over devices; None where it is not split.

    Attributes:
      data: groups of devices with the same parameters and different sentences.
      model: groups of devices with the same sentences and different parts of the parameters.
    """

    data: Axis | None = None
    model: Axis | None = None


def axis_size(axis: Axis | None) -> int:
    """The number of devices in a group."""
    return axis.size if axis else 1


def shard_size(length: int, axis: Axis | None) -> int:
    """The length of a device's shard of an array axis, rounded up if it does not divide."""
    return -(-length // axis_size(axis))


def axis_index(axis: Axis | None) -> Array:
    """The index of this device in its group, int32 []."""
    if axis is None:
        return jnp.zeros((), jnp.int32)
    device = jax.lax.axis_index(axis.name)
    if axis.groups is None:
        return device
    # A table from each device's index on the mapped axis to its index in its group.
    members = sorted((device, i) for group in axis.groups for i, device in enumerate(group))
    return jnp.asarray([i for _, i in members], jnp.int32)[device]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def copy_to_model_parallel(x: Any, axis: Axis | None) -> Any:
    """The identity, whose gradient is summed over the devices (f of Shoeybi 2019).

    For an x that is equal on all devices and that each multiplies by a different part of the
    weights: each device's gradient of x is then one term of the whole gradient.
    """
    return x


def _copy_forward(x: Any, axis: Axis | None) -> tuple[Any, None]:
    return x, None


def _copy_backward(axis: Axis | None, _: None, gradient: Any) -> tuple[Any]:
    return (psum(gradient, axis),)


copy_to_model_parallel.defvjp(_copy_forward, _copy_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def reduce_from_model_parallel(x: Any, axis: Axis | None) -> Any:
    """The sum over the devices, whose gradient is the identity (g of Shoeybi 2019).

    For terms of a sum, one on each device: all terms have the gradient of the sum, which every
    device has already computed.
    """
    return psum(x, axis)


def _reduce_forward(x: Any, axis: Axis | None) -> tuple[Any, None]:
    return psum(x, axis), None


def _reduce_backward(axis: Axis | None, _: None, gradient: Any) -> tuple[Any]:
    return (gradient,)


reduce_from_model_parallel.defvjp(_reduce_forward, _reduce_backward)


def psum(x: Any, axis: Axis | None) -> Any:
    """The sum over the devices of each array in a pytree. Not to be differentiated."""
    if axis is None:
        return x
    return jax.lax.psum(x, axis.name, axis_index_groups=axis.groups)


def pmax(x: Array, axis: Axis | None) -> Array:
    """The elementwise maximum over the devices. Not to be differentiated."""
    if axis is None:
        return x
    return jax.lax.pmax(x, axis.name, axis_index_groups=axis.groups)


def all_gather(x: Array, axis: Axis | None, along: int) -> Array:
    """The devices' arrays, concatenated along array axis `along`. Not to be differentiated."""
    if axis is None:
        return x
    return jax.lax.all_gather(
        x, axis.name, axis=along % x.ndim, tiled=True, axis_index_groups=axis.groups
    )


def reduce_scatter(x: Array, axis: Axis | None, along: int) -> Array:
    """This device's shard, along array axis `along`, of the sum over the devices."""
    if axis is None:
        return x
    return jax.lax.psum_scatter(
        x, axis.name, scatter_dimension=along, tiled=True, axis_index_groups=axis.groups
    )


# --- shards of one array, for ZeRO ---------------------------------------------------------------
#
# All devices hold the whole array, and each works on one shard of it. The array axis is chosen from
# the shape alone, so no list of axes has to be stored. If that axis does not divide by the number
# of devices, zeros are appended, which `all_gather_shards` removes.


def shard_axis(shape: tuple[int, ...], devices: int) -> int:
    """The array axis to shard: the first whose length divides by `devices`, else the longest."""
    for axis, length in enumerate(shape):
        if length % devices == 0:
            return axis
    return max(range(len(shape)), key=lambda axis: shape[axis])


def pad_for_shards(x: Array, axis: Axis | None) -> tuple[Array, int]:
    """x with zeros appended so that it divides into equal shards, and the array axis to shard."""
    along = shard_axis(x.shape, axis_size(axis))
    missing = -x.shape[along] % axis_size(axis)
    widths = [(0, missing if i == along else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths), along


def local_shard(x: Array, axis: Axis | None) -> Array:
    """This device's shard of an x that all devices hold."""
    padded, along = pad_for_shards(x, axis)
    length = padded.shape[along] // axis_size(axis)
    return jax.lax.dynamic_slice_in_dim(padded, axis_index(axis) * length, length, along)


def all_gather_shards(shard: Array, like: Array, axis: Axis | None) -> Array:
    """The array whose shards the devices hold; `like` has its shape."""
    along = shard_axis(like.shape, axis_size(axis))
    return jax.lax.slice_in_dim(all_gather(shard, axis, along), 0, like.shape[along], axis=along)
