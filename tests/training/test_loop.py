"""The host's loop, around a step that only counts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import TrainingConfig
from encdec.ops.losses import LossSums
from encdec.training import checkpoints, loop
from encdec.training.checkpoints import Checkpoints
from encdec.training.step import TrainState
from encdec.types import Array, Batch


def count(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, LossSums]:
    """Adds what the batch holds; its loss is n nats on n tokens in step n."""
    del key
    done = (state.step + 1).astype(jnp.float32)
    params = {"sum": state.params["sum"] + batch.src.sum().astype(jnp.float32)}
    return TrainState(state.step + 1, params, ()), LossSums(done, done, jnp.float32(1), done)


def batches(first: int = 1) -> Iterator[Batch]:
    number = first
    while True:
        yield Batch(np.full((1, 1), number, np.int32), np.zeros((1, 2), np.int32))
        number += 1


class Told:
    """Keeps all it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.steps: list[int] = []

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def update(self, step: int, **_: float) -> None:
        self.steps.append(step)


def train(folder: Path, scores: list[float], **settings: Any) -> tuple[TrainState, Told]:
    config = TrainingConfig(
        **{"max_steps": 12, "evaluate_every": 5, "log_every": 4, "select": "bleu"} | settings
    )
    told, coming = Told(), iter(scores)
    state = TrainState(jnp.int32(0), {"sum": jnp.float32(0)}, ())
    with Checkpoints(folder) as saved:
        state = loop.train(
            loop.CompiledStep(count, 1, lambda line: None),
            state,
            batches(),
            jax.random.key(0),
            config,
            lambda n: jnp.float32(n),
            evaluate=lambda params: {"bleu": (s := next(coming)), "loss": s},
            checkpoints=saved,
            best=None,
            log=told,
            bar=told,
        )
    return state, told


def test_rows_sums_and_steps(tmp_path: Path) -> None:
    state, told = train(tmp_path, [1.0, 3.0, 2.0])
    assert state.step == 12
    assert state.params["sum"] == sum(range(1, 13))
    trained = [row for row in told.rows if row["kind"] == "train"]
    assert told.steps == [row["step"] for row in trained] == [4, 8, 12]
    for row in trained:
        tokens = sum(range(row["step"] - 3, row["step"] + 1))
        assert row["loss"] == pytest.approx(1.0)  # nats a token
        assert row["accuracy"] == pytest.approx(4 / tokens)
        assert row["learning_rate"] == row["step"] - 1  # of the update that made the row
        assert row["tokens_per_second"] > 0
    valid = [row for row in told.rows if row["kind"] == "valid"]
    assert [(row["step"], row["bleu"]) for row in valid] == [(5, 1.0), (10, 3.0), (12, 2.0)]


@pytest.mark.parametrize(("select", "best"), [("bleu", 10), ("loss", 5)])
def test_the_best_and_the_latest_are_kept(tmp_path: Path, select: str, best: int) -> None:
    train(tmp_path, [1.0, 3.0, 2.0], select=select)
    assert checkpoints.steps(tmp_path, "best") == [best]
    assert checkpoints.steps(tmp_path, "latest") == [12]
    like = {"params": {"sum": np.zeros((), np.float32)}}
    for kind, step in (("best", best), ("latest", 12)):
        found, _ = checkpoints.load(tmp_path, kind, like)
        assert found["params"]["sum"] == sum(range(1, step + 1))


def test_a_shape_is_compiled_once_and_a_late_one_is_told() -> None:
    said: list[str] = []
    step = loop.CompiledStep(count, 2, said.append)
    state = TrainState(jnp.int32(0), {"sum": jnp.float32(0)}, ())
    for rows, length in ((2, 3), (1, 5), (2, 3), (1, 5), (4, 2)):
        batch = Batch(np.ones((rows, length), np.int32), np.ones((rows, 8), np.int32))
        state, _ = step(state, batch, jax.random.key(0))
    assert state.params["sum"] == 6 + 5 + 6 + 5 + 8
    assert [line.split(" in ")[0] for line in said] == [
        "compiled 2 sentences of 3 + 7 tokens",
        "compiled 1 sentences of 5 + 7 tokens",
        "compiled 4 sentences of 2 + 7 tokens",
    ]
    assert ["not planned" in line for line in said] == [False, False, True]
