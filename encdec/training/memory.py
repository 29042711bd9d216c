"""Checks that parameters and batches fit on the devices, before anything is written."""

import math
from typing import Any

import jax

from encdec.config import RunConfig
from encdec.data.bucketing import Bucketing
from encdec.models import registry
from encdec.parallel import devices
from encdec.parallel.layout import Layout
from encdec.types import InputError

_SMALLEST_VOCABULARY = 5
"""Four special tokens and one more."""


def check_parameters(config: RunConfig) -> None:
    """Raises InputError if the parameters are more than the memory of this machine.

    They are drawn there, whatever the devices. Those of large vocabularies are not counted, which
    are not known before the corpus is read: see `check_state`.
    """
    sizes = (config.data.vocabulary_size or _SMALLEST_VOCABULARY,) * 2
    model = registry.build(config.model, *sizes, joint=config.data.joint_vocabulary)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(registry.abstract(model)))
    memory = devices.host_memory()
    if 4 * count > memory:
        raise InputError(
            f"a model with {count:,} parameters needs {4 * count / 2**30:.1f} GiB for them alone, "
            f"and this machine has {memory / 2**30:.1f}: give it smaller sizes or fewer layers"
        )


def bytes_of(shapes: Any) -> int:
    """The bytes of a pytree of arrays, or of shapes and dtypes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def check_state(shapes: Any) -> None:
    """Raises InputError if a train state does not fit on a device, without any batch.

    Args:
      shapes: the state as each device has it, a pytree of arrays or of shapes and dtypes.
    """
    needed = bytes_of(shapes)
    memory = devices.device_memory()
    if needed > memory:
        raise InputError(
            f"parameters and optimizer need {needed / 2**30:.1f} GiB on each device, which has "
            f"{memory / 2**30:.1f}: a smaller model or more devices would do, or --shard-optimizer"
        )


def check_rows(bucketing: Bucketing, batch_tokens: int, layout: Layout) -> None:
    """Raises InputError if a batch has fewer sentences than there are data shards."""
    longest = _longest(bucketing)
    if batch_tokens < layout.data * longest:
        raise InputError(
            f"batch_tokens = {batch_tokens} hold {batch_tokens // longest} sentences of {longest} "
            f"tokens, too few for the {layout.data} data shards of {layout}: batch_tokens of "
            f"{layout.data * longest} or fewer shards would do"
        )


def check_memory(
    bucketing: Bucketing, batch_tokens: int, layout: Layout, needed: int | None, fixed: int
) -> None:
    """Raises InputError if the largest batch does not fit on a device, with a size that would.

    Args:
      bucketing, batch_tokens, layout: those of the run.
      needed: bytes that each device needs for the largest batch; None if that is not known.
      fixed: those of the bytes that hold parameters and optimizer, whatever the size of the batch.
    """
    limit = devices.device_memory()
    if needed is None or needed <= limit:
        return
    # The memory of a step grows with its tokens; a twentieth of the device is left free.
    fits = int(batch_tokens * (0.95 * limit - fixed) / max(needed - fixed, 1))
    would_do = (
        f"batch_tokens of about {fits} would fit"
        if fits >= layout.data * _longest(bucketing)
        else "a smaller model or more devices would do, or --shard-optimizer and --remat"
    )
    raise InputError(
        f"a step with batch_tokens = {batch_tokens} needs {needed / 2**30:.1f} GiB on each device "
        f"({fixed / 2**30:.1f} of them for parameters and optimizer), which has "
        f"{limit / 2**30:.1f}: {would_do}"
    )


def _longest(bucketing: Bucketing) -> int:
    """Tokens of the longest sentence of either side."""
    return max(max(bucket.source_length, bucket.target_length) for bucket in bucketing.buckets)
