"""The one place that maps a step over devices, and what such a step costs.

A step is an ordinary function of one device's arrays; on a single device it is compiled as it is.
An array that lies on devices has them as its leading axis: those of this process.

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

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.parallel.layout import NAME, Layout, layout_devices
from encdec.types import Array


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
    found = jax.pmap(lambda x: collectives.psum(x, axis), NAME)(here)
    return all(float(x) == count * (count + 1) / 2 for x in on_devices(found))


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
    return jax.pmap(step, NAME, in_axes=axes, donate_argnums=donate, devices=layout_devices(layout))


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
