"""Devices and precision: settings of a command, which are not saved with the run."""

import math
from dataclasses import dataclass
from typing import Literal

from encdec.config.checks import check_ranges, check_types, require
from encdec.types import InputError, Weights


@dataclass(frozen=True)
class DeviceConfig:
    """Devices and precision. A run can be resumed with other ones."""

    layout: str | None = None
    """Devices as DATAxMODEL, such as 4x2: the sentences of a batch are split over DATA devices;
    attention heads, FFN hidden size and vocabulary of a Transformer over MODEL devices. By default
    all devices are data-parallel."""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    """What matrix products multiply: float32 on every device; tf32, TensorFloat-32 on a GPU and
    three bfloat16 parts on a TPU; or bfloat16. auto is bfloat16 on TPU and GPU, float32 on CPU.
    Parameters, states, sums and softmax are always float32."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class InferenceDeviceConfig(DeviceConfig):
    """Devices and precision of translations and scores."""

    weights: Weights = "float32"
    """int8: matrices of a Transformer, and what they are multiplied by, are rounded to 8 bits:
    faster on one CPU from JAX 0.11 on, and a quarter of the memory. Translations may change a
    little."""


@dataclass(frozen=True)
class TrainingDeviceConfig(DeviceConfig):
    """Devices and precision of training."""

    shard_optimizer: bool = False
    """Split the optimizer state over the data-parallel devices (ZeRO-1): less memory, more
    communication."""
    remat: bool = False
    """Compute the layers of a Transformer again in the backward pass: less memory, a third more
    time."""
    save_minutes: float = 10.0
    """Minutes from one checkpoint to the next, where no validation comes before."""
    coordinator: str | None = None
    """With several processes: address:port of the first. Slurm, TPU pods and others need none of
    these three options, since they set them in the environment."""
    processes: int | None = None
    """With several processes: their number."""
    process: int | None = None
    """With several processes: the number of this one, counted from 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.save_minutes < math.inf, self, "save_minutes", "a number above 0")
        given = [x is not None for x in (self.coordinator, self.processes, self.process)]
        if any(given) and not all(given):
            raise InputError("coordinator, processes and process go together: give all three")
        if self.coordinator is not None:
            host, _, port = self.coordinator.rpartition(":")
            is_port = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
            require(
                bool(host) and is_port, self, "coordinator", "ADDRESS:PORT, as in 10.0.0.1:1234"
            )
        check_ranges(self, positive="processes")
        if self.processes is not None and self.process is not None:
            accepts = f"from 0 to {self.processes - 1}"
            require(0 <= self.process < self.processes, self, "process", accepts)
