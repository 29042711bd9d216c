"""The one place that maps a step over devices, and what such a step communicates.

A step is an ordinary function of one device's arrays. On a single device it is compiled as it is;
on several, `jax.pmap` runs it on all of them. The arrays of a mapped step have a leading axis of
devices: those of this process.

Why pmap: a step is written for one device, with explicit collectives, so what is communicated and
when can be read in the code and counted in the table below. Since JAX 0.8 pmap is by default a
wrapper of `jax.jit` and `jax.shard_map`, and since 0.9.2 it has no other implementation: a step
could move to those two without a change of its own. Within one process a training step does not
pay for the wrapper, because `compile_step` returns the compiled program, which is called directly.
Between processes it pays at each call: pmap converts the arguments from this process's shards to
global arrays, and the results back.

Communication of a step of a Transformer with N + N layers and P parameter arrays:

| over | what | operations a step |
|---|---|---|
| model shards | sums of activations, forward: embeddings, each sub-layer | 5 N + 2 |
| | sums of gradients, backward: each sub-layer, memory, logits | 5 N + 2 |
| | loss: maximum and sums of three numbers for each token, once for each part of a batch | 2 |
| | gradient norm | 1 |
| data shards | sum of all gradients and losses | 1 |
| data shards with `shard_optimizer`, instead | reduce-scatter of gradients | P |
| | all-gather of parameters | P |
| | sums of losses, and of the gradient norm | 2 |

The recurrent models have no model shards; over data shards they communicate the same.

XLA combines operations that do not depend on each other: on a CPU, 10 N + 5 of the 10 N + 7 over
model shards remain, and all gradients are summed in one operation. A TPU's compiler combines arrays
up to some hundred megabytes only, and sums larger ones each by itself. A search needs 2 N + 1
operations over model shards to encode a source and 3 N + 2 for each target token, and none over
data shards.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.parallel.layout import NAME, Layout, layout_devices
from encdec.types import Array


def local_shards(x: Array) -> Iterator[np.ndarray]:
    """The shards of x on this process's devices, in their order, without the axis of devices."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return (np.asarray(shard.data)[0] for shard in shards)


def psum_works() -> bool:
    """Whether a sum over all devices is right: 1 + 2 + ... + N, on every device."""
    count = jax.device_count()
    axis = Axis(NAME, count)
    first = jax.process_index() * jax.local_device_count() + 1
    numbers = np.arange(first, first + jax.local_device_count(), dtype=np.float32)
    sums = jax.pmap(lambda x: collectives.psum(x, axis), NAME)(numbers)
    return all(float(x) == count * (count + 1) / 2 for x in local_shards(sums))


def parallelize(
    step: Callable[..., Any],
    layout: Layout,
    sharded: tuple[bool, ...],
    donate: tuple[int, ...] = (),
) -> Any:
    """Compiles a step for all devices of a layout.

    Args:
      step: a pure function of one device's arrays.
      layout: the devices.
      sharded: for each argument, whether it has a leading axis of devices; if not, all devices get
        the same array.
      donate: the arguments whose buffers the step may overwrite.
    """
    if layout.size == 1:
        return jax.jit(step, donate_argnums=donate)
    axes = tuple(0 if has_axis else None for has_axis in sharded)
    return jax.pmap(step, NAME, in_axes=axes, donate_argnums=donate, devices=layout_devices(layout))


def compile_step(
    step: Any, *arguments: Any, measure: bool = False
) -> tuple[Callable[..., Any], int | None]:
    """Compiles a step of `parallelize` ahead of time for arguments of these shapes.

    Args:
      step: from `parallelize`.
      *arguments: arrays of the shapes and types to compile for.
      measure: whether the memory must be known even where it costs a second compilation.

    Returns:
      What to call, and the bytes that each device needs for it; None where XLA does not say. With
      several processes the program does not convert its arguments as pmap does, so the step itself
      is returned, which compiles at its first call, and its memory is known only with `measure`.
    """
    one_process = jax.process_count() == 1
    if not one_process and not measure:
        return step, None
    program = step.lower(*arguments).compile()
    memory = program.memory_analysis()
    needed = None
    if memory is not None:
        needed = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes  # donated buffers, which are arguments and outputs
        )
    return (program if one_process else step), needed
