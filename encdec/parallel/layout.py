"""How a run's work is laid out on devices: data parts x model parts.

All devices of all processes form one mapped axis, laid out as data x model: device d M + m has the
m-th part of the model and the d-th part of the sentences.
"""

import re
from dataclasses import dataclass
from typing import Any, Self

import jax

from encdec.config import ModelConfig, TransformerConfig
from encdec.parallel import devices
from encdec.parallel.collectives import Axes, Axis
from encdec.types import InputError

NAME = "devices"


@dataclass(frozen=True)
class Layout:
    """How devices share the work.

    Attributes:
      data: parts that the sentences of a batch fall into.
      model: parts that heads, inner columns and vocabulary of a Transformer fall into.
      shard_optimizer: the optimiser's state is cut over the data parts as well.
    """

    data: int = 1
    model: int = 1
    shard_optimizer: bool = False

    @classmethod
    def parse(cls, text: str | None, *, shard_optimizer: bool = False) -> Self:
        """`4x2`: data x model; None for all devices on data.

        Raises:
          InputError: it is no layout, or needs other devices than there are.
        """
        here = devices.device_count()
        if text is None:
            return cls(here, 1, shard_optimizer)
        found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
        would_do = ", ".join(f"{here // m}x{m}" for m in range(1, here + 1) if here % m == 0)
        if not found:
            raise InputError(
                f"layout = {text!r} cannot be used: it must be DATAxMODEL, such as {would_do}"
            )
        layout = cls(int(found[1]), int(found[2]), shard_optimizer)
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
                fits = [m for m in range(1, devices.device_count() + 1) if whole % m == 0]
                raise InputError(
                    f"layout {self} cannot split {name} = {whole} into {self.model} equal parts: "
                    f"{' or '.join(map(str, fits))} model parts would do"
                )


SINGLE_DEVICE = Layout()
"""One device."""


def layout_devices(layout: Layout) -> list[Any]:
    """The devices of a layout, process by process."""
    processes = range(jax.process_count())
    return [d for p in processes for d in jax.local_devices(process_index=p)][: layout.size]


def local_devices(layout: Layout) -> list[Any]:
    """Those of a layout's devices that are this process's."""
    return [d for d in layout_devices(layout) if d.process_index == jax.process_index()]
