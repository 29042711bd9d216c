"""Checkpoints between validations: when the run is interrupted, and every so many minutes.

SIGTERM (a scheduler that wants the machine back) and SIGINT (Ctrl-C) let the current step finish,
save the state, and end training. A second signal acts at once.
"""

import signal
import threading
import time
from collections.abc import Callable
from signal import Signals
from types import FrameType
from typing import Any, NamedTuple, Self

from encdec.parallel.processes import SharedPlan

_SAVE = "save"


class Pause(NamedTuple):
    """What is to be done after a step.

    Attributes:
      save: whether the state is saved.
      signal: the signal that ends training after that; None to continue.
    """

    save: bool = False
    signal: Signals | None = None


class Interrupted(KeyboardInterrupt):
    """Training has ended because of a signal, after it saved its state.

    Attributes:
      signal: SIGINT or SIGTERM.
    """

    def __init__(self, message: str, by: Signals) -> None:
        super().__init__(message)
        self.signal = by


class Interruption:
    """Says after which steps training saves its state or ends; all processes get the same answers.

    As a context manager it takes the signals over; outside of the main thread it leaves them alone.

    Args:
      save_minutes: the time from one checkpoint to the next.
      clock: returns seconds.

    Attributes:
      received: the first signal that this process received, or None.
    """

    def __init__(self, save_minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = 60 * save_minutes, clock
        self._saved_at = clock()
        self.received: Signals | None = None
        self._before: dict[Signals, Any] = {}
        self._plan = SharedPlan()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # A shell starts a command in the background with Ctrl-C ignored.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received is None:
            self.received = Signals(number)
            return
        self.__exit__()
        signal.raise_signal(number)

    def saved(self) -> None:
        """Notes that the state has just been saved."""
        self._saved_at = self._clock()

    def after(self, step: int) -> Pause:
        """What is to be done after a step; called after each step."""
        due = self._clock() - self._saved_at >= self._seconds
        wish = self.received.name if self.received else _SAVE if due else None
        plan = self._plan.agreed(step, wish, _SAVE)
        if plan is None:
            return Pause()
        return Pause(True, None if plan == _SAVE else Signals[plan])
