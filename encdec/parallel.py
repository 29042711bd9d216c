"""Devices: how a run lies on them, and the one place that maps a step over them.

All devices of all processes stand on one mapped axis, laid out as data x model: device d M + m has
the m-th part of the model and the d-th part of the sentences. A step is an ordinary function of
one device's arrays; on a single device it is compiled as it is. From here, an array that lies on
devices has them as its leading axis: those of this process.

What a step of a Transformer of N + N layers and P parameter arrays says between devices:

| who | what | how often |
|---|---|---|
| model parts | sums of activations: embeddings, each sub-layer, forwards | 5 N + 2 |
| | sums of gradients: each sub-layer, memory, logits, backwards | 5 N + 2 |
| | loss: maximum and sums of three numbers a token, once a part of the batch | 2 |
| | norm of the gradient | 1 |
| data parts | sum of all gradients and losses | 1 |
| with a sliced optimiser, instead | sums of which each gets a slice | P |
| | slices of parameters joined | P |
| | losses, norm of the gradient | 2 |

XLA joins those that do not wait for each other: on a CPU, of the 10 N + 7 among model parts
10 N + 5 are left, and all gradients travel in one. A search says 2 N + 1 to read a source and
3 N + 2 for each token among model parts, and nothing among data parts.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from encdec.config import ModelConfig, TransformerConfig
from encdec.ops import collectives
from encdec.ops.collectives import Axes, Axis
from encdec.types import Array, InputError

NAME = "devices"


@dataclass(frozen=True)
class Layout:
    """How devices share the work.

    Attributes:
      data: parts that the sentences of a batch fall into.
      model: parts that heads, inner columns and vocabulary of a Transformer fall into.
      sliced_optimizer: the optimiser's state is cut over the data parts as well.
    """

    data: int = 1
    model: int = 1
    sliced_optimizer: bool = False

    @classmethod
    def parse(cls, text: str | None, *, sliced_optimizer: bool = False) -> Self:
        """`4x2`: data x model; None for all devices on data.

        Raises:
          InputError: it is no layout, or needs other devices than there are.
        """
        here = device_count()
        if text is None:
            return cls(here, 1, sliced_optimizer)
        found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
        would_do = ", ".join(f"{here // m}x{m}" for m in range(1, here + 1) if here % m == 0)
        if not found:
            raise InputError(
                f"layout = {text!r} cannot be used: it must be DATAxMODEL, such as {would_do}"
            )
        layout = cls(int(found[1]), int(found[2]), sliced_optimizer)
        if layout.size > here:
            raise InputError(
                f"layout {text} needs {layout.size} devices, but there are {here}: "
                f"{would_do} would do"
            )
        processes = jax.process_count()
        if processes > 1 and layout.size != here:
            raise InputError(
                f"layout {text} has {layout.size} devices, but the {processes} processes have "
                f"{here}, and all must take part: {would_do} would do"
            )
        if (here // processes) % layout.model and processes > 1:
            raise InputError(
                f"layout {text} would split one model over two processes: the model parts must "
                f"divide the {here // processes} devices of a process"
            )
        return layout

    def __str__(self) -> str:
        return f"{self.data}x{self.model}"

    @property
    def size(self) -> int:
        """Devices."""
        return self.data * self.model

    @property
    def axes(self) -> Axes:
        """Who works with whom."""
        D, M = self.data, self.model
        across = tuple(tuple(range(m, D * M, M)) for m in range(M))
        along = tuple(tuple(range(d * M, (d + 1) * M)) for d in range(D))
        data = Axis(NAME, D, across if M > 1 else None) if D > 1 else None
        model = Axis(NAME, M, along if D > 1 else None) if M > 1 else None
        return Axes(data, model)

    @property
    def local_data(self) -> range:
        """Which data parts this process has: those of its devices."""
        if self.size == 1:
            return range(1)
        here = self.data // jax.process_count()
        return range(jax.process_index() * here, (jax.process_index() + 1) * here)

    def check_model(self, config: ModelConfig) -> None:
        """Raises InputError unless the model can be split over this many devices."""
        if self.model == 1:
            return
        if not isinstance(config, TransformerConfig):
            raise InputError(
                f"layout {self} splits heads, which only a transformer has: {self.size}x1 would do"
            )
        for name in ("heads", "feed_forward"):
            whole = getattr(config, name)
            if whole % self.model:
                fits = [m for m in range(1, device_count() + 1) if whole % m == 0]
                raise InputError(
                    f"layout {self} cannot split {name} = {whole} into {self.model} equal parts: "
                    f"{' or '.join(map(str, fits))} model parts would do"
                )


ALONE = Layout()
"""One device."""


def device_count() -> int:
    """Devices of all processes."""
    return jax.device_count()


def _devices(layout: Layout) -> list[Any]:
    """The devices of a layout, process by process."""
    processes = range(jax.process_count())
    return [d for p in processes for d in jax.local_devices(process_index=p)][: layout.size]


def _local_devices(layout: Layout) -> list[Any]:
    return [d for d in _devices(layout) if d.process_index == jax.process_index()]


def sums_over_devices() -> bool:
    """Whether a mapped step over all devices adds up as it should."""
    count = jax.device_count()
    axis = Axis(NAME, count)
    here = np.arange(jax.local_device_count(), dtype=np.float32) + 1
    here += jax.process_index() * jax.local_device_count()
    found = jax.pmap(lambda x: collectives.total(x, axis), NAME)(here)
    return all(float(x) == count * (count + 1) / 2 for x in _on_devices(found))


def product_type(precision: str) -> Any:
    """The type of products that a precision stands for on these devices."""
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(precision)


# --- steps ---------------------------------------------------------------------------------------


def mapped(
    step: Callable[..., Any],
    layout: Layout,
    split: tuple[bool, ...],
    donate: tuple[int, ...] = (),
) -> Any:
    """A compiled step on all devices of a layout.

    Args:
      step: pure, of one device's arrays.
      layout: the devices.
      split: for each argument whether devices have arrays of their own, with a leading axis, or
        all the same.
      donate: arguments whose buffers are used up.
    """
    if layout.size == 1:
        return jax.jit(step, donate_argnums=donate)
    axes = tuple(0 if own else None for own in split)
    return jax.pmap(step, NAME, in_axes=axes, donate_argnums=donate, devices=_devices(layout))


def compiled(
    step: Any, *arguments: Any, measure: bool = False
) -> tuple[Callable[..., Any], int | None]:
    """A mapped step compiled for arguments of these shapes, and the bytes a device needs for it.

    Between processes a mapped step must translate its arguments, which a compiled program does
    not; there the step itself is returned, which compiles when it is first called, and the bytes
    are found only if asked for.
    """
    alone = jax.process_count() == 1
    if not alone and not measure:
        return step, None
    program = step.lower(*arguments).compile()
    found = program.memory_analysis()
    needed = None
    if found is not None:
        needed = (
            found.argument_size_in_bytes
            + found.output_size_in_bytes
            + found.temp_size_in_bytes
            - found.alias_size_in_bytes
        )
    return (program if alone else step), needed


def device_memory() -> int:
    """Bytes that one device has: a CPU's part of what the machine, or its container, has."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    container = Path("/sys/fs/cgroup/memory.max")
    if container.exists() and (text := container.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits) // jax.local_device_count()


def bytes_held(tree: Any, layout: Layout) -> int:
    """Bytes that each device holds of what lies on devices."""
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    return held if layout.size == 1 else held // len(_local_places(layout))


# --- whole arrays to devices and back ------------------------------------------------------------


class Part(NamedTuple):
    """How an array lies on devices.

    Attributes:
      shape: of the whole.
      model: its axis that is split over the model parts, -1 for none.
      data: the axis of such a part that is cut over the data parts, -1 for none.
    """

    shape: tuple[int, ...]
    model: int = -1
    data: int = -1


def parts(shapes: Any, axes: Any, layout: Layout, *, sliced: bool = False) -> Any:
    """A Part for each array of a pytree.

    Args:
      shapes: arrays or shapes.
      axes: a pytree like it of the axis (int) to split over the model parts, -1 for none.
      layout: the devices.
      sliced: cut over the data parts as well.
    """

    def part(leaf: Any, axis: int) -> Part:
        axis = axis if layout.model > 1 else -1
        if not sliced or layout.data == 1 or not leaf.ndim:
            return Part(leaf.shape, axis)
        local = list(leaf.shape)
        if axis >= 0:
            local[axis] = -(-local[axis] // layout.model)
        return Part(leaf.shape, axis, collectives.slice_axis(tuple(local), layout.data))

    return jax.tree.map(part, shapes, axes)


def place(tree: Any, how: Any, layout: Layout) -> Any:
    """Whole arrays on their devices; `how` is what `parts` says."""
    if layout.size == 1:
        return jax.tree.map(jnp.asarray, tree)
    mesh = Mesh(np.array(_local_devices(layout)), (NAME,))
    sharding = NamedSharding(mesh, PartitionSpec(NAME))
    places = [divmod(i, layout.model) for i in _local_places(layout)]

    def put(whole: Any, part: Part) -> Array:
        whole = np.asarray(whole)

        def own(index: Any) -> np.ndarray:
            return _cut(whole, part, layout, *places[index[0].start or 0])[None]

        shape = (len(places), *own((slice(0),)).shape[1:])
        return jax.make_array_from_callback(shape, sharding, own)

    return jax.tree.map(put, tree, how)


def whole(tree: Any, how: Any, layout: Layout) -> Any:
    """NumPy arrays as they were before `place`; `how` is what `parts` says."""
    if layout.size == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x, part: _join(x, part, layout), tree, how)


def first(tree: Any, layout: Layout) -> Any:
    """What is the same on all devices, as NumPy arrays."""
    if layout.size == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x: next(_on_devices(x)), tree)


def _local_places(layout: Layout) -> range:
    data = layout.local_data
    return range(data.start * layout.model, data.stop * layout.model)


def _cut(whole: np.ndarray, part: Part, layout: Layout, d: int, m: int) -> np.ndarray:
    for axis, count, place in ((part.model, layout.model, m), (part.data, layout.data, d)):
        if axis >= 0:
            missing = -whole.shape[axis] % count
            widths = [(0, missing if i == axis else 0) for i in range(whole.ndim)]
            whole = np.split(np.pad(whole, widths), count, axis)[place]
    return whole


def _on_devices(x: Array) -> Iterator[np.ndarray]:
    """What each of this process's devices holds of x, in their order."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return (np.asarray(shard.data)[0] for shard in shards)


def _join(x: Array, part: Part, layout: Layout) -> np.ndarray:
    """The whole array, from what this process's devices hold of it."""
    local = list(part.shape)  # of one model part
    if part.model >= 0:
        local[part.model] = -(-local[part.model] // layout.model)
    slices = layout.data if part.data >= 0 else 1
    if slices > 1 and jax.process_count() > 1:  # other processes hold some
        axis, along, slices = layout.axes.data, part.data, 1
        x = mapped(lambda s: collectives.gathered(s, axis, along), layout, (True,))(x)
    held = list(_on_devices(x))
    models = [
        np.concatenate(held[m : slices * layout.model : layout.model], max(part.data, 0))
        if slices > 1
        else held[m]
        for m in range(layout.model if part.model >= 0 else 1)
    ]
    models = [model[tuple(map(slice, local))] for model in models]  # without zeros at the end
    whole = models[0] if len(models) == 1 else np.concatenate(models, part.model)
    return whole[tuple(map(slice, part.shape))]


# --- sentences -----------------------------------------------------------------------------------


def rows_for(rows: int, layout: Layout) -> int:
    """Rows of a batch that fall evenly on the data parts: as many, or a few empty ones more."""
    return -(-rows // layout.data) * layout.data


def place_rows(tree: Any, layout: Layout) -> Any:
    """This process's rows of a batch, [rows, ...], on its devices: [devices, rows a device, ...].

    Every model part of a data part gets the same.
    """
    if layout.size == 1:
        return tree
    here = len(layout.local_data)

    def split(x: np.ndarray) -> np.ndarray:
        return np.repeat(x.reshape(here, -1, *x.shape[1:]), layout.model, axis=0)

    return jax.tree.map(split, tree)


def local_rows(rows: int, layout: Layout) -> slice:
    """Which of a batch's rows this process has."""
    each = rows // layout.data
    return slice(layout.local_data.start * each, layout.local_data.stop * each)


def all_rows(tree: Any, layout: Layout) -> Any:
    """A result with a row a sentence, of all devices of all processes: NumPy [rows, ...]."""
    if layout.size == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda x: _rows(x, layout)[0], tree)


def all_rows_by_model(x: Array, layout: Layout) -> np.ndarray:
    """As `all_rows`, of each model part: NumPy [model, rows, ...]."""
    return jax.device_get(x)[None] if layout.size == 1 else _rows(x, layout)


def _rows(x: Array, layout: Layout) -> np.ndarray:
    held = np.stack(list(_on_devices(x)))
    held = held.reshape(-1, layout.model, *held.shape[1:]).swapaxes(0, 1)  # [model, data, rows]
    rows = held.reshape(layout.model, -1, *held.shape[3:])
    if jax.process_count() == 1:
        return rows
    gathered = multihost_utils.process_allgather(rows)  # [processes, model, rows, ...]
    return np.concatenate(list(gathered), 1)
