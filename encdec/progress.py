"""Progress on stderr: a bar on a terminal, and otherwise a line every few seconds."""

import sys
import time
from collections.abc import Callable
from typing import Self

import tqdm

_LINE_SECONDS = 5.0
"""Seconds between two lines of progress where no terminal can redraw a bar."""


def to_stderr(line: str) -> None:
    """Prints a line."""
    print(line, file=sys.stderr)


class Counter:
    """A progress bar that counts to a total; a context manager that closes the bar.

    Args:
      total: the count at the end.
      what: what is counted, such as "translated".
      start: the count at the beginning.
      say: is called with each line, of progress too where no bar can be drawn.
    """

    def __init__(
        self, total: int, what: str, start: int = 0, say: Callable[[str], None] = to_stderr
    ) -> None:
        # A notebook can redraw a line too.
        self._terminal = sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
        self._bar = tqdm.tqdm(
            total=total, initial=start, desc=what, disable=not self._terminal, dynamic_ncols=True
        )
        self._total, self._what, self._done, self._start = total, what, start, start
        self._say = say
        self._compiles = True
        self._started = self._printed = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, count: int, note: str = "") -> None:
        """Adds to the count and shows it, with a note behind it."""
        self._done += count
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        now = time.perf_counter()
        last = self._done >= self._total
        if not self._terminal and (last or now - self._printed > _LINE_SECONDS):
            self._printed = now
            parts = [f"{self._what} {self._done}/{self._total}"]
            done = self._done - self._start
            if last or (done > 0 and not self._compiles):  # else nothing tells how fast it is
                left = (now - self._started) / max(done, 1) * (self._total - self._done)
                parts.append(f"{left:.0f} s left")
            self.say(", ".join([*parts, note] if note else parts))
        if self._compiles and count:  # the first batch, which does not tell how fast others are
            self._compiles, self._started, self._start = False, now, self._done

    def discount(self, seconds: float) -> None:
        """Takes time that will not come again out of the estimate of the time that is left."""
        self._started += seconds
        if self._terminal:
            self._bar.start_t += seconds
            self._bar.last_print_t += seconds

    def say(self, line: str) -> None:
        """Says a line, above the bar if there is one."""
        with tqdm.tqdm.external_write_mode(file=sys.stderr):
            self._say(line)


class Progress(Counter):
    """The progress bar of training, which counts steps."""

    def __init__(self, total: int, start: int, say: Callable[[str], None] = to_stderr) -> None:
        super().__init__(total, "step", start, say)
        self._compiles = False  # `discount` is told of that

    def update(
        self, step: int, *, loss: float, tokens_per_second: float, learning_rate: float
    ) -> None:
        """Shows the step that training has reached; the loss is in nats per token."""
        note = f"loss {loss:.4f}, {tokens_per_second:,.0f} tokens/s, rate {learning_rate:.2e}"
        self.add(step - self._done, note)
