"""Arrays on devices: whole ones split and joined again, sentences dealt out and gathered.

An array that lies on devices has them as its leading axis: those of this process (see
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
from encdec.parallel.pmap import mapped, on_devices
from encdec.types import Array

# --- whole arrays to devices and back ------------------------------------------------------------


class ShardSpec(NamedTuple):
    """How an array lies on devices.

    Attributes:
      shape: of the whole.
      model: its axis that is split over the model parts, -1 for none.
      data: the axis of such a part that is cut over the data parts, -1 for none.
    """

    shape: tuple[int, ...]
    model: int = -1
    data: int = -1


def shard_specs(shapes: Any, axes: Any, layout: Layout, *, sliced: bool = False) -> Any:
    """A ShardSpec for each array of a pytree.

    Args:
      shapes: arrays or shapes.
      axes: a pytree like it of the axis (int) to split over the model parts, -1 for none.
      layout: the devices.
      sliced: cut over the data parts as well.
    """

    def part(leaf: Any, axis: int) -> ShardSpec:
        axis = axis if layout.model > 1 else -1
        if not sliced or layout.data == 1 or not leaf.ndim:
            return ShardSpec(leaf.shape, axis)
        local = list(leaf.shape)
        if axis >= 0:
            local[axis] = -(-local[axis] // layout.model)
        return ShardSpec(leaf.shape, axis, collectives.shard_axis(tuple(local), layout.data))

    return jax.tree.map(part, shapes, axes)


def shard(tree: Any, how: Any, layout: Layout) -> Any:
    """Whole arrays on their devices; `how` is what `shard_specs` says."""
    if layout.size == 1:
        return jax.tree.map(jnp.asarray, tree)
    mesh = Mesh(np.array(local_devices(layout)), (NAME,))
    sharding = NamedSharding(mesh, PartitionSpec(NAME))
    places = [divmod(i, layout.model) for i in _local_places(layout)]

    def put(whole: Any, part: ShardSpec) -> Array:
        whole = np.asarray(whole)

        def own(index: Any) -> np.ndarray:
            return _cut(whole, part, layout, *places[index[0].start or 0])[None]

        shape = (len(places), *own((slice(0),)).shape[1:])
        return jax.make_array_from_callback(shape, sharding, own)

    return jax.tree.map(put, tree, how)


def gather(tree: Any, how: Any, layout: Layout) -> Any:
    """NumPy arrays as they were before `shard`; `how` is what `shard_specs` says."""
    if layout.size == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x, part: _join(x, part, layout), tree, how)


def unreplicate(tree: Any, layout: Layout) -> Any:
    """What is the same on all devices, as NumPy arrays."""
    if layout.size == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x: next(on_devices(x)), tree)


def _local_places(layout: Layout) -> range:
    """Places on the mapped axis of this process's devices."""
    data = layout.local_data
    return range(data.start * layout.model, data.stop * layout.model)


def _cut(whole: np.ndarray, part: ShardSpec, layout: Layout, d: int, m: int) -> np.ndarray:
    for axis, count, place in ((part.model, layout.model, m), (part.data, layout.data, d)):
        if axis >= 0:
            missing = -whole.shape[axis] % count
            widths = [(0, missing if i == axis else 0) for i in range(whole.ndim)]
            whole = np.split(np.pad(whole, widths), count, axis)[place]
    return whole


def _join(x: Array, part: ShardSpec, layout: Layout) -> np.ndarray:
    """The whole array, from what this process's devices hold of it."""
    local = list(part.shape)  # of one model part
    if part.model >= 0:
        local[part.model] = -(-local[part.model] // layout.model)
    slices = layout.data if part.data >= 0 else 1
    if slices > 1 and jax.process_count() > 1:  # other processes hold some
        x, slices = _joined_slices(layout, part.data)(x), 1
    held = list(on_devices(x))
    models = [
        np.concatenate(held[m : slices * layout.model : layout.model], max(part.data, 0))
        if slices > 1
        else held[m]
        for m in range(layout.model if part.model >= 0 else 1)
    ]
    models = [model[tuple(map(slice, local))] for model in models]  # without zeros at the end
    whole = models[0] if len(models) == 1 else np.concatenate(models, part.model)
    return whole[tuple(map(slice, part.shape))]


@lru_cache(maxsize=32)
def _joined_slices(layout: Layout, along: int) -> Any:
    """A step that joins slices; one for each axis, so that each shape compiles once."""
    join = partial(collectives.all_gather, axis=layout.axes.data, along=along)
    return mapped(join, layout, (True,))


def bytes_held(tree: Any, layout: Layout) -> int:
    """Bytes that each device holds of what lies on devices."""
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    return held if layout.size == 1 else held // len(_local_places(layout))


# --- sentences -----------------------------------------------------------------------------------


def padded_rows(rows: int, layout: Layout) -> int:
    """Rows of a batch that fall evenly on the data parts: as many, or a few empty ones more."""
    return -(-rows // layout.data) * layout.data


def shard_batch(tree: Any, layout: Layout) -> Any:
    """This process's rows of a batch, [rows, ...], on its devices: [devices, rows a device, ...].

    Every model part of a data part gets the same.
    """
    if layout.size == 1:
        return tree
    here = len(layout.local_data)

    def split(x: np.ndarray) -> np.ndarray:
        return np.repeat(x.reshape(here, -1, *x.shape[1:]), layout.model, axis=0)

    return jax.tree.map(split, tree)


def local_batch_rows(rows: int, layout: Layout) -> slice:
    """Which of a batch's rows this process has."""
    each = rows // layout.data
    return slice(layout.local_data.start * each, layout.local_data.stop * each)


def gather_batch(tree: Any, layout: Layout) -> Any:
    """A result with a row a sentence, of all devices of all processes: NumPy [rows, ...]."""
    if layout.size == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x: _rows(x, layout)[0], tree)


def gather_batch_by_model(x: Array, layout: Layout) -> np.ndarray:
    """As `gather_batch`, of each model part: NumPy [model, rows, ...]."""
    return jax.device_get(x)[None] if layout.size == 1 else _rows(x, layout)


def _rows(x: Array, layout: Layout) -> np.ndarray:
    held = np.stack(list(on_devices(x)))
    held = held.reshape(-1, layout.model, *held.shape[1:]).swapaxes(0, 1)  # [model, data, rows]
    rows = held.reshape(layout.model, -1, *held.shape[3:])
    if jax.process_count() == 1:
        return rows
    gathered = multihost_utils.process_allgather(rows)  # [processes, model, rows, ...]
    return np.concatenate(list(gathered), 1)
