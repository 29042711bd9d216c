"""Measurements on disk, and progress on the screen."""

import contextlib
import json
import math
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import tqdm

_PLAIN_SECONDS = 5.0
"""Between two lines of progress where no terminal can redraw one."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a line that a kill cut off is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


class Measured(NamedTuple):
    """Rows of a `metrics.jsonl` by their kind, in order.

    Attributes:
      start: where and when training began or went on.
      train, valid, test: what was measured on the way, at validations, and by `evaluate`.
    """

    start: list[dict[str, Any]]
    train: list[dict[str, Any]]
    valid: list[dict[str, Any]]
    test: list[dict[str, Any]]

    @property
    def minutes(self) -> float:
        """Of training, compiling among them; validation and scoring are not."""
        return round(sum(row["seconds"] for row in self.train) / 60, 1)


def measured(path: Path) -> Measured:
    """What stands in a `metrics.jsonl`."""
    rows = read_metrics(path)
    return Measured(*([row for row in rows if row["kind"] == kind] for kind in Measured._fields))


def append_metrics(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to a `metrics.jsonl` outside of training, on a line of its own.

    Args:
      path: the file; made where there is none.
      row: `kind`, `step` and measurements; NaN is written as null.

    Raises:
      OSError: it cannot be written.
    """
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # What a kill cut off stays a line by itself, which `read_metrics` passes over.
            file.write(b"" if file.read() == b"\n" else b"\n")
        file.write(f"{json_line(row)}\n".encode())


class MetricsLog:
    """Appends rows to `metrics.jsonl`, and their numbers to TensorBoard files beside it.

    Args:
      run: the run folder.
      resume_step: rows after it are dropped, since the resumed run measures those steps again.
    """

    def __init__(self, run: Path, resume_step: int) -> None:
        from tensorboardX import SummaryWriter  # takes two seconds to import

        path = run / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= resume_step]
        unfinished = path.with_name(path.name + ".tmp")
        unfinished.write_text("".join(f"{json_line(row)}\n" for row in kept), encoding="utf-8")
        unfinished.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=resume_step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, row: dict[str, Any]) -> None:
        """One row: `step`, `kind` ("train" or "valid") and numbers; NaN is written as null."""
        self._file.write(json_line(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self._board.add_scalar(f"{row['kind']}/{name}", value, row["step"])


def json_line(row: dict[str, Any]) -> str:
    """A row as one JSON object on one line; NaN and infinities are null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(finite)


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


class Silent:
    """Log and progress of a process that leaves both to another."""

    def write(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def update(self, step: int, **what: float) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""
