"""What was measured in training and scoring: rows of `metrics.jsonl`, and TensorBoard files."""

import contextlib
import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from encdec.files import write_text


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
        write_text(path, "".join(f"{json_line(row)}\n" for row in kept))
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


class Silent:
    """Log and progress of a process that leaves both to another."""

    def write(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def update(self, step: int, **what: float) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""
