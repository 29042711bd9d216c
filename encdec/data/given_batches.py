"""Batches that a caller passes to training; each is checked before it is used.

They replace a corpus: arrays only, without text and without vocabularies.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from encdec.data.batches import ALL_ROWS, Rows
from encdec.data.simple_vocabularies import SPECIALS
from encdec.types import Batch, InputError

BatchSource = Iterable[Batch] | Callable[[int], Iterator[Batch]]
"""A list of batches (or any iterable that can be read again), which is repeated until training
ends; an iterator, which ends with its last batch and cannot be resumed; or a function from the
number of steps that are done to the iterator over the batches that follow."""


@dataclass(frozen=True)
class BatchCheck:
    """The requirements on a batch.

    Attributes:
      vocabulary_size: the ids of both sides must be below it.
      rows_multiple: must divide the number of rows: data shards times parts of a batch.
      reason: the data shards and parts in words, for the error.
    """

    vocabulary_size: int
    rows_multiple: int
    reason: str

    def __call__(self, batch: Any, name: str) -> Batch:
        """Returns the batch, if training can use it.

        Raises:
          InputError: training cannot use the batch; the error begins with `name`.
        """
        if not isinstance(batch, Batch):
            raise InputError(
                f"{name} is a {type(batch).__name__}, not an encdec.Batch of arrays (pairs of text "
                "must be given as a list)"
            )
        _check_shapes(batch, name)
        for side in ("src", "tgt"):
            array = np.asarray(getattr(batch, side))
            if array.dtype == np.int32:
                self._check_ids(array, f"{name}: {side}")
        if not np.any(batch.tgt_mask):
            raise InputError(
                f"{name} has no target: tgt_mask is False everywhere, and must be True where there "
                "is a token"
            )
        rows = len(batch.src)
        if rows % self.rows_multiple:
            raise InputError(
                f"{name} has {rows} rows, which cannot be divided among {self.reason}: give a "
                f"multiple of {self.rows_multiple}, with empty pairs (masks of False) at the end"
            )
        return batch

    def _check_ids(self, ids: np.ndarray, name: str) -> None:
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.vocabulary_size:
            raise InputError(
                f"{name} has ids from {low} to {high}: they must be from 0 to vocabulary_size - 1 "
                f"= {self.vocabulary_size - 1}"
            )


_LETTERS = {"src": "[B, S]", "src_mask": "[B, S]", "tgt": "[B, T + 1]", "tgt_mask": "[B, T]"}


def _check_shapes(batch: Batch, name: str) -> None:
    """Raises InputError unless dtypes and shapes are those of a Batch."""
    shapes = {side: np.shape(getattr(batch, side)) for side in Batch._fields}
    rows, source = (*shapes["src"], 0, 0)[:2]
    target = (*shapes["tgt"], 0, 0)[1]
    wanted: dict[str, tuple[type, tuple[int, ...]]] = {
        "src": (np.int32, (rows, source)),
        "src_mask": (np.bool_, (rows, source)),
        "tgt": (np.int32, (rows, target)),
        "tgt_mask": (np.bool_, (rows, target - 1)),
    }
    if len(shapes["src"]) == 3:
        wanted["src"] = (np.float32, shapes["src"])
    for side, (dtype, shape) in wanted.items():
        array = getattr(batch, side)
        if np.asarray(array).dtype != dtype or shapes[side] != shape or 0 in shape:
            has = f"{np.asarray(array).dtype}{list(shapes[side])}"
            wants = f"{np.dtype(dtype)}{list(shape)}"
            raise InputError(f"{name}: {side} is {has}, not {wants}, {_LETTERS[side]}")


class GivenBatches(NamedTuple):
    """The training and validation data of a run without a corpus.

    Attributes:
      train: batches to train on.
      valid: batches to validate on; empty for no validation.
      check: is called with each batch before it is used.
    """

    train: BatchSource
    valid: tuple[Batch, ...]
    check: BatchCheck


def with_first_checked(
    train: BatchSource,
    valid: tuple[Batch, ...],
    check: BatchCheck,
    say: Callable[[str], None],
) -> GivenBatches:
    """Checks the first training batch and returns all given batches.

    Args:
      train, valid: the batches.
      check: is called with the first one.
      say: is called with a line if its sources have no end tokens.

    Raises:
      InputError: training cannot use the first batch, or there is none.
    """
    first = next(_following(train, 0), None)
    if first is None:
        raise InputError("there is no batch to train on")
    src = np.asarray(check(first, "the batch of step 1").src)
    if src.dtype == np.int32 and not (src == SPECIALS.end).any():
        say(
            f"no row of src has the end token {SPECIALS.end}, which a source that is translated "
            "later gets: end each row with it"
        )
    if not callable(train) and iter(train) is train:
        train = itertools.chain([first], train)
    return GivenBatches(train, valid, check)


def batches_from(given: GivenBatches, step: int, rows: Rows = ALL_ROWS) -> Iterator[Batch]:
    """This process's rows of the batches that follow `step`.

    Args:
      given: the batches of all processes.
      step: the number of updates of the run.
      rows: the rows of this process.

    Raises:
      InputError: training cannot use a batch, or an iterator would have to start at a later step.
    """
    for number, batch in enumerate(_following(given.train, step), step + 1):
        checked = given.check(batch, f"the batch of step {number}")
        count = len(checked.src) // rows.parts
        part = slice(rows.part * count, (rows.part + 1) * count)
        yield Batch(*(side[part] for side in checked))


def _following(source: BatchSource, step: int) -> Iterator[Batch]:
    if callable(source):
        return iter(source(step))
    if iter(source) is source:
        if step:
            raise InputError(
                f"the run has {step} steps already, and an iterator cannot return to there: pass a "
                "list of batches, or a function from the number of steps done to an iterator"
            )
        return source
    return itertools.islice(_repeated(source), step, None)


def _repeated(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        batch = None
        for batch in batches:
            yield batch
        if batch is None:
            raise InputError("there is no batch to train on")
