"""The metrics log of a run: rows of `metrics.jsonl`, and TensorBoard files."""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from encdec.config.checks import fits
from encdec.files import parse_json, write_text
from encdec.types import InputError

_MAX_LISTED = 5
"""Bad lines that a message lists."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a `metrics.jsonl`; lines that are no rows are skipped."""
    return [row for row in map(_row, _lines(path)) if row is not None]


def describe_bad_lines(path: Path) -> str | None:
    """One line that names the lines of a `metrics.jsonl` that are no rows; None without any.

    The unfinished last line of a killed process is not among them.
    """
    lines = _lines(path)
    bad = [i for i, line in enumerate(lines, 1) if line.strip() and _row(line) is None]
    if lines and bad and bad[-1] == len(lines):
        bad.pop()  # a finished line ends in a line break, after which the last line is empty
    if not bad:
        return None
    listed = ", ".join(map(str, bad[:_MAX_LISTED])) + (", ..." if len(bad) > _MAX_LISTED else "")
    are = (
        "line {} is no row of metrics and is"
        if len(bad) == 1
        else ("lines {} are no rows of metrics and are")
    )
    return f"{path}: {are.format(listed)} skipped"


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n") if path.exists() else []


def _row(line: bytes) -> dict[str, Any] | None:
    """The row in a line; None if it holds none."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or row.get("kind") not in MetricRows._fields:
        return None
    numbers = [row.get("step"), row.get("seconds")]
    if row["kind"] in ("train", "valid"):
        numbers += [value for name, value in row.items() if name != "kind"]
    is_row = fits(row.get("step"), int) and fits(row.get("name"), str | None)
    return row if is_row and all(map(_is_number, numbers)) else None


def _is_number(value: Any) -> bool:
    """Whether a value is null or a number that floats can hold."""
    return value is None or (fits(value, float) and not abs(value) >= 1e300)


class MetricRows(NamedTuple):
    """Rows of a `metrics.jsonl` by their kind, each kind in the order of the file.

    Attributes:
      start: where and when training started or resumed.
      train, valid, test: measurements of training steps, of validations, and of `encdec evaluate`.
    """

    start: list[dict[str, Any]]
    train: list[dict[str, Any]]
    valid: list[dict[str, Any]]
    test: list[dict[str, Any]]

    @property
    def minutes(self) -> float:
        """Duration of training with its compilations, but without validation, in minutes."""
        return round(sum(row.get("seconds") or 0 for row in self.train) / 60, 1)


def metric_rows(path: Path) -> MetricRows:
    """Reads the rows of a `metrics.jsonl`, sorted by kind."""
    rows = read_metrics(path)
    return MetricRows(
        *([row for row in rows if row["kind"] == kind] for kind in MetricRows._fields)
    )


def append_metrics(path: Path, row: dict[str, Any]) -> None:
    """Appends a row to a `metrics.jsonl` that no training process has open.

    Args:
      path: the file; created if it does not exist.
      row: `kind`, `step` and measurements; NaN is written as null.

    Raises:
      OSError: the file cannot be written.
    """
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # An unfinished line of a killed process gets its end, and `read_metrics` skips it.
            file.write(b"" if file.read() == b"\n" else b"\n")
        file.write(f"{json_line(row)}\n".encode())


class MetricsLog:
    """Appends rows to `metrics.jsonl`, and their numbers to TensorBoard files in the same folder.

    Args:
      run: the run folder.
      resume_step: the step that training resumes from; rows of later steps are dropped, because
        training measures those steps again.

    Raises:
      InputError: a file cannot be written, here or in `write`.
    """

    def __init__(self, run: Path, resume_step: int) -> None:
        path = run / "metrics.jsonl"
        self._run = run
        with self._writing():
            kept = [row for row in read_metrics(path) if row["step"] <= resume_step]
            write_text(path, "".join(f"{json_line(row)}\n" for row in kept))
            self._file = path.open("a", encoding="utf-8")
            self._board = _TensorBoard(run / "tensorboard", resume_step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error, which says more, a file that cannot be written either is not news.
        with suppress(InputError) if kind else nullcontext(), self._writing():
            try:
                self._file.close()
            finally:
                self._board.close()

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row: `step`, `kind` and numbers; NaN is written as null."""
        with self._writing():
            self._file.write(json_line(row) + "\n")
            self._file.flush()
            self._board.write(row)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self._run / 'metrics.jsonl'} or the files in tensorboard beside it cannot be "
                f"written ({error.strerror}): make room there; the same command resumes the run"
            ) from error


class _TensorBoard:
    """A TensorBoard file. It is written at once: the library's own writer does so in a thread,
    which dies where the disk is full, and whoever hands it a row then waits forever.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # its import takes two seconds
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        # TensorBoard drops what an earlier file has of these steps.
        self._add(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, row: dict[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                summary = scalar(f"{row['kind']}/{name}", value)
                self._add(Event(step=row["step"], summary=summary))

    def close(self) -> None:
        self._writer.close()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
        self._writer.flush()


def json_line(row: dict[str, Any]) -> str:
    """A row as a JSON object on one line, with null for NaN and infinities."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(finite)


class Silent:
    """The log and progress bar of a process that is not the main one: both do nothing."""

    def write(self, row: dict[str, Any]) -> None:
        """Ignores a row."""

    def update(self, step: int, **what: float) -> None:
        """Shows nothing."""

    def say(self, line: str) -> None:
        """Prints nothing."""

    def discount(self, seconds: float) -> None:
        """Estimates nothing."""
