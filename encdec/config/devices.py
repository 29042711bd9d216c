"""Where a run computes: settings of a command, not of a run."""

from dataclasses import dataclass
from typing import Literal

from encdec.config.checks import check_literals
from encdec.types import InputError


@dataclass(frozen=True)
class DeviceConfig:
    """Devices and arithmetic; a run may be gone on with under others."""

    layout: str | None = None
    """Devices as DATAxMODEL, such as 4x2: a batch's sentences split over DATA, a Transformer's
    heads, inner columns and vocabulary over MODEL; left out, all devices on data."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of products; auto: bfloat16 on TPU and GPU, else float32. Parameters, sums and softmax
    are float32 in any case."""

    def __post_init__(self) -> None:
        check_literals(self)


@dataclass(frozen=True)
class TrainingDeviceConfig(DeviceConfig):
    """What training can choose beside."""

    shard_optimizer: bool = False
    """Each data part holds a slice of the optimiser's state alone (ZeRO 1): less memory, more
    communication."""
    remat: bool = False
    """A Transformer's layers are computed again in the backward pass: less memory, a third more
    time."""
    coordinator: str | None = None
    """Several processes: address:port of the first. Slurm, TPU pods and the like need none of the
    three: their environment tells."""
    processes: int | None = None
    """Several processes: how many."""
    process: int | None = None
    """Several processes: which one this is, from 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [x is not None for x in (self.coordinator, self.processes, self.process)]
        if any(given) and not all(given):
            raise InputError("coordinator, processes and process go together: give all three")
        if self.processes is not None and self.process is not None:
            if self.processes < 1:
                raise InputError(
                    f"processes = {self.processes} cannot be used: it must be at least 1"
                )
            if not 0 <= self.process < self.processes:
                raise InputError(
                    f"process = {self.process} cannot be used: it must be from 0 to "
                    f"{self.processes - 1}"
                )
