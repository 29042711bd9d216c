"""Arrays on devices: whole arrays are sharded and gathered, and so are the rows of a batch.

An array on the devices of a layout has a leading axis of devices: those of this process (see
`encdec.parallel.layout`).
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from encdec.parallel import collectives
from encdec.parallel.layout import NAME, Layout, local_devices
from encdec.parallel.pmap import local_shards, parallelize
from encdec.parallel.processes import any_process
from encdec.types import Array

# --- whole arrays --------------------------------------------------------------------------------


class ShardSpec(NamedTuple):
    """How one array is split over devices.

    Attributes:
      shape: of the whole array.
      model: the array axis that is split over the model shards, -1 for none.
      data: the array axis along which each model shard is split over the data shards, -1 for none.
    """

    shape: tuple[int, ...]
    model: int = -1
    data: int = -1


def shard_specs(shapes: Any, axes: Any, layout: Layout, *, over_data: bool = False) -> Any:
    """A ShardSpec for each array of a pytree.

    Args:
      shapes: a pytree of arrays or of their shapes.
      axes: for each array the axis (int) to split over the model shards, -1 for none.
      layout: the devices.
      over_data: whether to split over the data shards as well (ZeRO).
    """

    def spec(array: Any, axis: int) -> ShardSpec:
        axis = axis if layout.model > 1 else -1
        if not over_data or layout.data == 1 or not array.ndim:
            return ShardSpec(array.shape, axis)
        data_axis = collectives.shard_axis(
            _model_shard_shape(array.shape, axis, layout), layout.data
        )
        return ShardSpec(array.shape, axis, data_axis)

    return jax.tree.map(spec, shapes, axes)


def shard_shapes(shapes: Any, specs: Any, layout: Layout) -> Any:
    """The shapes of each device's shards of whole arrays, as `jax.ShapeDtypeStruct`."""

    def of_device(array: Any, spec: ShardSpec) -> jax.ShapeDtypeStruct:
        shape = _model_shard_shape(array.shape, spec.model, layout)
        if spec.data >= 0:
            shape = tuple(
                -(-n // layout.data) if axis == spec.data else n for axis, n in enumerate(shape)
            )
        return jax.ShapeDtypeStruct(shape, array.dtype)

    return jax.tree.map(of_device, shapes, specs)


def shard(tree: Any, specs: Any, layout: Layout) -> Any:
    """Puts whole arrays on the devices, split as the `shard_specs` say."""
    if layout.size == 1:
        return jax.device_put(tree)  # jnp.asarray would compile a program for each shape
    mesh = Mesh(np.array(local_devices(layout)), (NAME,))
    sharding = NamedSharding(mesh, PartitionSpec(NAME))
    # (d, m) of each device of this process.
    indices = [divmod(i, layout.model) for i in _local_indices(layout)]

    def put(array: Any, spec: ShardSpec) -> Array:
        array = np.asarray(array)

        def shard_of_device(index: Any) -> np.ndarray:
            return _shard(array, spec, layout, *indices[index[0].start or 0])[None]

        shape = (len(indices), *shard_of_device((slice(0),)).shape[1:])
        return jax.make_array_from_callback(shape, sharding, shard_of_device)

    return jax.tree.map(put, tree, specs)


def gather(tree: Any, specs: Any, layout: Layout) -> Any:
    """The whole arrays that `shard` put on the devices, as NumPy arrays."""
    if layout.size == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x, spec: _gather(x, spec, layout), tree, specs)


def all_finite(tree: Any, layout: Layout) -> bool:
    """Whether all numbers of a pytree that lies on devices are finite; all processes must ask."""
    if layout.size == 1:
        return bool(_all_finite(tree))
    of_array = [[s.data for s in leaf.addressable_shards] for leaf in jax.tree.leaves(tree)]
    finite = [bool(_all_finite(parts)) for parts in zip(*of_array, strict=True)]  # of each device
    return not any_process(not all(finite))[0]


@jax.jit
def _all_finite(tree: Any) -> Array:
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all()


def unreplicate(tree: Any, layout: Layout) -> Any:
    """The NumPy arrays of one device, of arrays that are equal on all devices."""
    if layout.size == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x: next(local_shards(x)), tree)


def _local_indices(layout: Layout) -> range:
    """The indices on the mapped axis of this process's devices."""
    data = layout.local_data
    return range(data.start * layout.model, data.stop * layout.model)


def _model_shard_shape(shape: tuple[int, ...], axis: int, layout: Layout) -> tuple[int, ...]:
    """The shape of a model shard: its axis is rounded up if the length does not divide."""
    return tuple(-(-n // layout.model) if i == axis else n for i, n in enumerate(shape))


def _shard(array: np.ndarray, spec: ShardSpec, layout: Layout, d: int, m: int) -> np.ndarray:
    """The shard of device (d, m), with zeros at the end where an axis does not divide."""
    # The order matters: the data axis of a spec is an axis of the model shard.
    for axis, count, index in ((spec.model, layout.model, m), (spec.data, layout.data, d)):
        if axis >= 0:
            missing = -array.shape[axis] % count
            widths = [(0, missing if i == axis else 0) for i in range(array.ndim)]
            array = np.split(np.pad(array, widths), count, axis)[index]
    return array


def _gather(x: Array, spec: ShardSpec, layout: Layout) -> np.ndarray:
    """The whole array; inverts `_shard` over all devices."""
    model_shape = _model_shard_shape(spec.shape, spec.model, layout)
    data_shards = layout.data if spec.data >= 0 else 1
    if data_shards > 1 and jax.process_count() > 1:
        # Other processes hold some of the data shards: the devices exchange them first.
        x, data_shards = _all_gather_step(layout, spec.data)(x), 1
    shards = list(local_shards(x))
    # The shards of model shard m are those of devices m, M + m, 2 M + m ...
    model_shards = [
        np.concatenate(shards[m : data_shards * layout.model : layout.model], spec.data)
        if data_shards > 1
        else shards[m]
        for m in range(layout.model if spec.model >= 0 else 1)
    ]
    # Both kinds of padding are cut off where they were added: first data, then model.
    model_shards = [shard[tuple(map(slice, model_shape))] for shard in model_shards]
    whole = model_shards[0] if spec.model < 0 else np.concatenate(model_shards, spec.model)
    return whole[tuple(map(slice, spec.shape))]


@lru_cache(maxsize=32)
def _all_gather_step(layout: Layout, along: int) -> Any:
    """A step that gathers data shards along an array axis; cached, so each shape compiles once."""
    step = partial(collectives.all_gather, axis=layout.axes.data, along=along)
    return parallelize(step, layout, (True,))


def bytes_per_device(tree: Any, layout: Layout) -> int:
    """The bytes on each device of the arrays of a pytree."""
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    return total if layout.size == 1 else total // len(_local_indices(layout))


# --- rows of a batch -----------------------------------------------------------------------------


def padded_batch_size(rows: int, layout: Layout) -> int:
    """The number of rows, rounded up to a multiple of the data shards."""
    return -(-rows // layout.data) * layout.data


def shard_batch(tree: Any, layout: Layout) -> Any:
    """Splits this process's rows of a batch over its devices.

    All model shards of a data shard get the same rows.

    Args:
      tree: arrays [rows, ...], as many rows for each data shard.
      layout: the devices.

    Returns:
      Arrays [devices, rows of a device, ...].
    """
    if layout.size == 1:
        return tree
    data_shards = len(layout.local_data)

    def split(x: np.ndarray) -> np.ndarray:
        # Not -1: an array may have no column, such as the prefixes of sentences without any.
        shards = x.reshape(data_shards, len(x) // data_shards, *x.shape[1:])
        return np.repeat(shards, layout.model, axis=0)

    return jax.tree.map(split, tree)


def local_batch_rows(rows: int, layout: Layout) -> slice:
    """The rows of a batch that belong to this process."""
    per_shard = rows // layout.data
    return slice(layout.local_data.start * per_shard, layout.local_data.stop * per_shard)


def shard_rows(tree: Any, layout: Layout) -> Any:
    """Puts a batch on this process's devices: its share of the rows, with rows of zeros at the end
    where data shards would have different numbers.

    Args:
      tree: NumPy arrays [rows, ...], the same in all processes.
      layout: the devices.

    Returns:
      As `shard_batch`.
    """

    def local(x: np.ndarray) -> np.ndarray:
        rows = padded_batch_size(len(x), layout)
        padded = np.pad(x, [(0, rows - len(x)), *[(0, 0)] * (x.ndim - 1)])
        return padded[local_batch_rows(rows, layout)]

    return shard_batch(jax.tree.map(local, tree), layout)


def gather_batch(tree: Any, layout: Layout) -> Any:
    """The rows that all devices of all processes computed, as NumPy arrays [rows, ...]."""
    if layout.size == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x: _gather_rows(x, layout)[0], tree)


def gather_batch_by_model(x: Array, layout: Layout) -> np.ndarray:
    """As `gather_batch`, where the model shards computed different things: [model, rows, ...]."""
    return jax.device_get(x)[None] if layout.size == 1 else _gather_rows(x, layout)


def _gather_rows(x: Array, layout: Layout) -> np.ndarray:
    """[devices, rows of a device, ...] -> [model, rows, ...], of all processes."""
    shards = np.stack(list(local_shards(x)))
    data, each = len(shards) // layout.model, shards.shape[1]
    # [data, model, rows of a device, ...] -> [model, data, ...]. Not -1: the attention of a model
    # without any is empty.
    shards = shards.reshape(data, layout.model, *shards.shape[1:]).swapaxes(0, 1)
    rows = shards.reshape(layout.model, data * each, *shards.shape[3:])
    if jax.process_count() == 1:
        return rows
    gathered = multihost_utils.process_allgather(rows)  # [processes, model, rows, ...]
    return np.concatenate(list(gathered), 1)
