"""The reports of the steps that the device computes while the host goes on."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from encdec.training.compiled_step import Devices
from encdec.training.resume_point import WindowSums
from encdec.training.step import StepReport
from encdec.types import Batch


class DivergedError(Exception):
    """A loss or gradient is not finite; the message says which.

    Attributes:
      step: the update that the loss or gradient belongs to; for a validation loss the update before
        the validation.
      batch: the batch of that update.
    """

    def __init__(self, step: int, batch: Batch, what: str) -> None:
        super().__init__(what)
        self.step, self.batch = step, batch


class _Pending(NamedTuple):
    """A step whose report the device may not have computed yet."""

    step: int
    batch: Batch
    report: StepReport


class StepReports:
    """The reports of the steps in flight, and sums of those that have arrived.

    Args:
      devices: copies a report to the host.
      window: the sums of the steps before, which are not in a row yet.
    """

    def __init__(self, devices: Devices, window: WindowSums) -> None:
        self._devices = devices
        self._pending: deque[_Pending] = deque()
        self._sums = window
        self._since = time.perf_counter() - window.seconds

    def add(self, step: int, batch: Batch, report: StepReport) -> None:
        """Adds the report of a step, which the device may not have computed yet."""
        self._pending.append(_Pending(step, batch, report))

    def settle(self, at_most: int) -> None:
        """Waits until at most `at_most` steps are in flight; raises DivergedError."""
        while len(self._pending) > at_most:
            first = self._pending[0]
            self._add(first, self._devices.unreplicate(first.report))
            self._pending.popleft()

    def _add(self, done: _Pending, report: StepReport) -> None:
        loss, correct, tokens = map(float, report.sums)
        norm = float(report.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"the loss is {loss / max(tokens, 1):.4g} and its gradient's norm {norm:.4g}"
            raise DivergedError(done.step, done.batch, what)
        sums = self._sums
        self._sums = sums._replace(
            loss=sums.loss + loss,
            correct=sums.correct + correct,
            tokens=sums.tokens + tokens,
            gradient_norm=norm,
        )

    def window(self) -> WindowSums:
        """The sums since the last row."""
        return self._sums._replace(seconds=time.perf_counter() - self._since)

    def row(self, step: int, rate: float) -> dict[str, Any]:
        """The row of metrics since the last row."""
        row = self.window().row(step, rate)
        self._sums, self._since = WindowSums(), time.perf_counter()
        return row

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time within does not count as training."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start
