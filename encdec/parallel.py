"""Devices: how a run lies on them, and the one place that maps a step over them.

All devices of all processes stand on one mapped axis, laid out as data x model: device d M + m has
the m-th part of the model and the d-th part of the sentences. A step is an ordinary function of
one device's arrays; on a single device it is compiled as it is. An array that lies on devices has
them as its leading axis: those of this process.

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
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

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


def local_devices(layout: Layout) -> list[Any]:
    """Those of a layout's devices that are this process's."""
    return [d for d in _devices(layout) if d.process_index == jax.process_index()]


def on_devices(x: Array) -> Iterator[np.ndarray]:
    """What each of this process's devices holds of x, in their order."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return (np.asarray(shard.data)[0] for shard in shards)


def sums_over_devices() -> bool:
    """Whether a mapped step over all devices adds up as it should."""
    count = jax.device_count()
    axis = Axis(NAME, count)
    here = np.arange(jax.local_device_count(), dtype=np.float32) + 1
    here += jax.process_index() * jax.local_device_count()
    found = jax.pmap(lambda x: collectives.total(x, axis), NAME)(here)
    return all(float(x) == count * (count + 1) / 2 for x in on_devices(found))


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
