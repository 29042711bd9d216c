"""Progress bars on stderr: a redrawn line on a terminal, a line now and then without one."""

import sys
import time
from types import TracebackType
from typing import Self

import tqdm

_PLAIN_SECONDS = 5.0
"""Between two lines of progress where no terminal can redraw one."""


class Counter:
    """A bar that counts to a total on stderr; without a terminal, a line now and then.

    Args:
      total: what is counted to.
      what: what is done to each, "translated".
      start: what is done already.
    """

    def __init__(self, total: int, what: str, start: int = 0) -> None:
        # A notebook redraws a line as a terminal does.
        self._terminal = sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
        self._bar = tqdm.tqdm(
            total=total, initial=start, desc=what, disable=not self._terminal, dynamic_ncols=True
        )
        self._total, self._what, self._done, self._start = total, what, start, start
        self._begun = self._told = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def add(self, count: int, note: str = "") -> None:
        """Counts on; the note stands behind the count."""
        self._done += count
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        now = time.perf_counter()
        last = self._done >= self._total
        if not self._terminal and (last or now - self._told > _PLAIN_SECONDS):
            self._told = now
            left = (now - self._begun) / max(self._done - self._start, 1)
            left *= self._total - self._done
            line = f"{self._what} {self._done}/{self._total}, {left:.0f} s left"
            self.say(f"{line}, {note}" if note else line)

    def say(self, line: str) -> None:
        """A line of its own."""
        tqdm.tqdm.write(line, file=sys.stderr)


class Progress(Counter):
    """The bar of a training run."""

    def __init__(self, total: int, start: int) -> None:
        super().__init__(total, "step", start)

    def update(
        self, step: int, *, loss: float, tokens_per_second: float, learning_rate: float
    ) -> None:
        """Shows where training is: loss in nats a token."""
        note = f"loss {loss:.4f}, {tokens_per_second:,.0f} tokens/s, rate {learning_rate:.2e}"
        self.add(step - self._done, note)
