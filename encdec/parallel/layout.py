"""How a step is split over devices: data shards x model shards.

All devices of all processes form one mapped axis. With M model shards, device d M + m has the d-th
shard of the sentences and the m-th shard of the model.
"""

import re
from dataclasses import dataclass
from typing import Any, Self

import jax

from encdec.config import ModelConfig
from encdec.config.families import family_name
from encdec.parallel import devices
from encdec.parallel.collectives import Axes, Axis
from encdec.types import InputError

NAME = "devices"
"""The name of the mapped axis."""
_MOST_UNROLLED = 6
"""Layers that are not a loop."""


@dataclass(frozen=True)
class Layout:
    """The number of shards of each kind.

    Attributes:
      data: shards of the sentences of a batch.
      model: shards of a Transformer's heads, feed-forward hidden units and vocabulary.
      shard_optimizer: whether the optimizer's state is split over the data shards as well (ZeRO 1).
      devices: the devices themselves, in the order of the mapped axis; if there are none, the first
        ones of all processes. Programs can be compiled for descriptions of devices too.
    """

    data: int = 1
    model: int = 1
    shard_optimizer: bool = False
    devices: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str | None, *, shard_optimizer: bool = False) -> Self:
        """Reads DATAxMODEL, such as `4x2`; None gives one data shard to each device.

        Raises:
          InputError: the text is not a layout, or does not fit the number of devices.
        """
        count = devices.device_count()
        if text is None:
            return cls(count, 1, shard_optimizer)
        match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
        valid = ", ".join(f"{count // m}x{m}" for m in range(1, count + 1) if count % m == 0)
        if not match:
            raise InputError(
                f"layout = {text!r} cannot be used: it must be DATAxMODEL, such as {valid}"
            )
        layout = cls(int(match[1]), int(match[2]), shard_optimizer)
        if layout.size > count:
            raise InputError(
                f"layout {text} needs {layout.size} devices, but there are {count}: "
                f"{valid} would do"
            )
        processes = jax.process_count()
        if processes > 1 and layout.size != count:
            raise InputError(
                f"layout {text} uses {layout.size} devices, but the {processes} processes have "
                f"{count}, and all of them must take part: {valid} would do"
            )
        if (count // processes) % layout.model and processes > 1:
            raise InputError(
                f"layout {text} would split one model over two processes: the number of model "
                f"shards must divide the {count // processes} devices of a process"
            )
        return layout

    def __str__(self) -> str:
        return f"{self.data}x{self.model}"

    @property
    def size(self) -> int:
        """The number of devices."""
        return self.data * self.model

    @property
    def axes(self) -> Axes:
        """The groups of devices that communicate."""
        D, M = self.data, self.model
        # Device d M + m: one data group for each m, one model group for each d.
        data_groups = tuple(tuple(range(m, D * M, M)) for m in range(M))
        model_groups = tuple(tuple(range(d * M, (d + 1) * M)) for d in range(D))
        data = Axis(NAME, D, data_groups if M > 1 else None) if D > 1 else None
        model = Axis(NAME, M, model_groups if D > 1 else None) if M > 1 else None
        return Axes(data, model)

    @property
    def local_data(self) -> range:
        """The indices of the data shards that lie on this process's devices."""
        if self.size == 1:
            return range(1)
        count = self.data // jax.process_count()
        return range(jax.process_index() * count, (jax.process_index() + 1) * count)

    def check_model(self, config: ModelConfig) -> None:
        """Raises InputError unless the model can be split over this many devices."""
        if self.model == 1:
            return
        if not config.split_fields:
            raise InputError(
                f"layout {self} splits the model, but the parameters of model "
                f"{family_name(config)} cannot be split: {self.size}x1 would do"
            )
        for name in config.split_fields:
            whole = getattr(config, name)
            if whole % self.model:
                fits = [m for m in range(1, devices.device_count() + 1) if whole % m == 0]
                raise InputError(
                    f"layout {self} cannot split {name} = {whole} into {self.model} equal parts: "
                    f"{' or '.join(map(str, fits))} model shards would do"
                )


SINGLE_DEVICE = Layout()
"""The layout of a single device."""


def layout_devices(layout: Layout) -> list[Any]:
    """The devices of a layout, in the order of the mapped axis: process by process."""
    if layout.devices:
        return list(layout.devices)
    processes = range(jax.process_count())
    return [d for p in processes for d in jax.local_devices(process_index=p)][: layout.size]


def scans_layers(layout: Layout, config: ModelConfig) -> bool:
    """Whether the layers of a model for these devices are a loop of the program.

    A loop compiles faster for an accelerator, the more so the deeper it is. But it stores and
    slices what layers by themselves hand on: `experiments/README.md` has the price for six layers,
    which is more than they gain.
    """
    is_cpu = layout_devices(layout)[0].platform == "cpu"
    return not is_cpu and config.alike_layers > _MOST_UNROLLED


def local_devices(layout: Layout) -> list[Any]:
    """The devices of a layout that belong to this process."""
    return [d for d in layout_devices(layout) if d.process_index == jax.process_index()]
