"""The host's loop, around a step that only counts."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import TrainingConfig
from encdec.ops.cross_entropy import LossSums
from encdec.progress import Progress
from encdec.runs import checkpoints
from encdec.runs.checkpoints import Checkpoints
from encdec.training import loop
from encdec.training.callbacks import log_rows, show_progress
from encdec.training.compiled_step import CompiledStep, Program
from encdec.training.early_stopping import EarlyStopping
from encdec.training.interruption import Interruption
from encdec.training.resume_point import ResumePoint
from encdec.training.saving import Saver
from encdec.training.step import StepReport, TrainState
from encdec.training.step_reports import DivergedError
from encdec.types import Array, Batch
from tests.batches import padded_batch


def count(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, StepReport]:
    """Adds what the batch holds; its loss is n nats on n tokens in step n."""
    del key
    done = (state.step + 1).astype(jnp.float32)
    params = {"sum": state.params["sum"] + batch.src.sum().astype(jnp.float32)}
    sums = LossSums(done, jnp.float32(1), done)
    return TrainState(state.step + 1, params, (), None), StepReport(sums, done * 2)


def batches(first: int = 1) -> Iterator[Batch]:
    number = first
    while True:
        yield padded_batch(np.full((1, 1), number, np.int32), np.zeros((1, 2), np.int32))
        number += 1


class OneDevice:
    """A single device, which runs a step as it is."""

    def __init__(self, step: Any) -> None:
        self.step = jax.jit(step)

    def compiled(self, *arguments: Any, measure: bool) -> Any:
        return self.step.lower(*arguments).compile(), 1000 * arguments[1].src.size

    def shard_batch(self, batch: Batch) -> Batch:
        return batch

    def unreplicate(self, report: StepReport) -> StepReport:
        return jax.device_get(report)

    def merge(self, trainable: Any, frozen: Any) -> Any:
        return trainable

    def all_finite(self, params: Any) -> bool:
        return bool(np.isfinite(params["sum"]))

    gather = gather_params = shard_params = lambda self, tree: tree


class Record:
    """Keeps what is logged and shown."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.lines: list[str] = []

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def update(self, step: int, **_: float) -> None:
        self.steps.append(step)

    def say(self, line: str) -> None:
        self.lines.append(line)


def train(
    folder: Path,
    scores: list[float],
    step: Program = count,
    average: Any = None,
    **settings: Any,
) -> tuple[TrainState, Record]:
    config = TrainingConfig(
        **{"max_steps": 12, "evaluate_every": 5, "log_every": 4, "best_metric": "bleu"} | settings
    )
    record, coming = Record(), iter(scores)
    state = TrainState(jnp.int32(0), {"sum": jnp.float32(0)}, (), average)
    with Checkpoints(folder, config.average_last) as saved:
        devices = OneDevice(step)
        last = loop.train(
            CompiledStep(devices, 1, lambda line, seconds: None),
            state,
            0,
            batches(),
            jax.random.key(0),
            config,
            lambda n: jnp.float32(n),
            evaluate=lambda params: {"bleu": (s := next(coming)), "loss": s},
            saver=Saver(devices, saved, config),
            start=ResumePoint(),
            interruption=Interruption(10),
            callbacks=(log_rows(record), show_progress(record)),
        ).step
    assert checkpoints.steps(folder, "latest") == [last]
    kept, _ = checkpoints.load(folder, "latest", jax.eval_shape(lambda: state))
    assert kept.step == last
    return kept, record


def test_rows_sums_and_steps(tmp_path: Path) -> None:
    state, record = train(tmp_path, [1.0, 3.0, 2.0])
    assert state.step == 12
    assert state.params["sum"] == sum(range(1, 13))
    trained = [row for row in record.rows if row["kind"] == "train"]
    assert record.steps == [row["step"] for row in trained] == [4, 8, 12]
    for row in trained:
        tokens = sum(range(row["step"] - 3, row["step"] + 1))
        assert row["loss"] == pytest.approx(1.0)  # nats a token
        assert row["accuracy"] == pytest.approx(4 / tokens)
        assert row["learning_rate"] == row["step"] - 1  # of the update that made the row
        assert row["gradient_norm"] == 2 * row["step"]
        assert row["tokens_per_second"] == pytest.approx(tokens / row["seconds"])
    valid = [row for row in record.rows if row["kind"] == "valid"]
    assert [(row["step"], row["bleu"]) for row in valid] == [(5, 1.0), (10, 3.0), (12, 2.0)]
    assert record.lines == [
        "step 5, validation: loss 1.0000, BLEU 1.00",
        "step 10, validation: loss 3.0000, BLEU 3.00",
        "step 12, validation: loss 2.0000, BLEU 2.00",
    ]


def test_compiling_counts_neither_as_training_nor_in_the_time_that_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class SlowToCompile(OneDevice):
        def compiled(self, *arguments: Any, measure: bool) -> Any:
            time.sleep(0.5)
            return super().compiled(*arguments, measure=measure)

    def two_shapes() -> Iterator[Batch]:
        for length in (1, 2, 1, 2):
            yield padded_batch(np.ones((1, length), np.int32), np.zeros((1, 2), np.int32))

    config = TrainingConfig(max_steps=1000, evaluate_every=1000, log_every=4, best_metric="loss")
    record, state = Record(), TrainState(jnp.int32(0), {"sum": jnp.float32(0)}, (), None)
    with Checkpoints(tmp_path) as saved, Progress(1000, 0) as bar:
        devices = SlowToCompile(count)
        step = CompiledStep(devices, 2, lambda line, seconds: bar.discount(seconds))
        loop.train(
            step,
            state,
            0,
            two_shapes(),
            jax.random.key(0),
            config,
            lambda n: jnp.float32(n),
            evaluate=None,
            saver=Saver(devices, saved, config),
            start=ResumePoint(),
            interruption=Interruption(10),
            callbacks=(log_rows(record),),
        )
        bar._printed -= 60  # the next line of progress is due
        bar.update(4, loss=0.0, tokens_per_second=1.0, learning_rate=1.0)
    assert record.rows[0]["seconds"] < 0.5
    left = capsys.readouterr().err.split("step 4/1000, ")[1].split(" s left")[0]
    assert float(left) < 0.5 * 1000 / 4


@pytest.mark.parametrize(("best_metric", "best"), [("bleu", 10), ("loss", 5)])
def test_the_best_and_the_latest_are_kept(tmp_path: Path, best_metric: str, best: int) -> None:
    train(tmp_path, [1.0, 3.0, 2.0], best_metric=best_metric)
    assert checkpoints.steps(tmp_path, "best") == [best]
    assert checkpoints.steps(tmp_path, "latest") == [12]
    like = {"params": {"sum": np.zeros((), np.float32)}}
    for kind, step in (("best", best), ("latest", 12)):
        found, _ = checkpoints.load(tmp_path, kind, like)
        assert found["params"]["sum"] == sum(range(1, step + 1))


def test_a_shape_is_compiled_once_and_a_late_one_is_told() -> None:
    said: list[str] = []
    step = CompiledStep(OneDevice(count), 2, lambda line, seconds: said.append(line))
    state = TrainState(jnp.int32(0), {"sum": jnp.float32(0)}, (), None)
    for rows, length in ((2, 3), (1, 5), (2, 3), (1, 5), (4, 2)):
        batch = padded_batch(np.ones((rows, length), np.int32), np.ones((rows, 8), np.int32))
        state, _ = step(state, batch, jax.random.key(0))
    assert state.params["sum"] == 6 + 5 + 6 + 5 + 8
    assert [line.split(" in ")[0] for line in said] == [
        "compiled 2 sentences of 3 + 7 tokens",
        "compiled 1 sentences of 5 + 7 tokens",
        "compiled 4 sentences of 2 + 7 tokens",
    ]
    remarks = [line.rpartition(" (")[2] for line in said]
    assert remarks == ["shape 1 of 2)", "shape 2 of 2)", "a shape that was not planned)"]


@pytest.mark.parametrize(("patience", "last"), [(0, 60), (1, 15), (2, 20), (3, 25), (4, 60)])
def test_training_ends_when_patience_is_spent(tmp_path: Path, patience: int, last: int) -> None:
    """Waited 0, 0, 1, 2, 3 validations: the fifth is only as good; then the sixth is better."""
    scores = [1.0, 3.0, 2.0, 1.0, 3.0, 4.0, 3.0, 2.0, 5.0, 6.0, 7.0, 8.0]
    state, _ = train(tmp_path, scores, patience=patience, max_steps=60)
    assert state.step == last
    note = checkpoints.load(tmp_path, "latest", {"step": np.zeros((), np.int32)})[1]
    assert note["stopping"]["waited"] == (patience if last < 60 else 0)


def test_the_mean_of_the_last_checkpoints_is_validated_and_kept(tmp_path: Path) -> None:
    sums = {n: n * (n + 1) / 2 for n in range(5, 26, 5)}
    config = {"max_steps": 25, "average_last": 3}
    state, _ = train(tmp_path, [1.0, 2.0, 3.0, 4.0, 5.0], **config)
    assert (
        state.params["sum"] == sums[25]
    )  # training itself goes on from the parameters as they are
    found, _ = checkpoints.load(tmp_path, "best", {"params": {"sum": np.zeros((), np.float32)}})
    assert found["params"]["sum"] == pytest.approx((sums[15] + sums[20] + sums[25]) / 3)
    assert checkpoints.steps(tmp_path, "recent") == [15, 20, 25]


def test_of_equal_metrics_the_lower_loss_is_better() -> None:
    """Patience does not end a run whose BLEU is 0 while its loss falls."""
    stopping = EarlyStopping()
    for step, loss in enumerate((3.0, 2.0, 2.5, 1.0, 1.0)):
        stopping = stopping.after(0.0, loss, step)
        assert stopping.waited == (0, 0, 1, 0, 1)[step]
    assert (stopping.step, stopping.loss) == (4, 1.0)
    assert stopping.after(0.5, 9.0, 5) == EarlyStopping(0.5, 0, 5, 9.0, 6)
    assert stopping.after(-0.5, 0.1, 5) == stopping._replace(waited=2, validations=6)


def test_of_equal_scores_the_latest_is_kept(tmp_path: Path) -> None:
    train(tmp_path, [1.0, 3.0, 2.0, 3.0, 1.0], max_steps=25)
    assert checkpoints.steps(tmp_path, "best") == [20]


@pytest.mark.parametrize("average_last", [1, 2])
def test_a_best_that_a_kill_left_out_is_saved_after_it(tmp_path: Path, average_last: int) -> None:
    """Each is what `train` itself saves: of the state of step 12, or of the mean of 10 and 12."""
    state, _ = train(tmp_path, [1.0, 2.0, 3.0], average_last=average_last)
    note = checkpoints.load(tmp_path, "latest", state)[1]
    like = {"params": state.params}
    expected, _ = checkpoints.load(tmp_path, "best", like)
    config = TrainingConfig(average_last=average_last)
    for stopping, there in (
        (EarlyStopping(9.0, 1, 11), []),
        (ResumePoint.from_note(note, "").stopping, [12]),
    ):
        shutil.rmtree(tmp_path / "checkpoints" / "best")
        with Checkpoints(tmp_path, average_last) as saved:
            Saver(OneDevice(count), saved, config).save_missing_best(state, 12, stopping)
        assert checkpoints.steps(tmp_path, "best") == there
    assert checkpoints.load(tmp_path, "best", like)[0] == expected


def test_the_moving_average_is_validated_and_kept(tmp_path: Path) -> None:
    def twice(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, StepReport]:
        after, report = count(state, batch, key)
        average = jax.tree.map(lambda p: 2 * p, after.params)
        return after._replace(average=average), report

    train(tmp_path, [1.0, 2.0, 3.0], twice, {"sum": jnp.float32(0)})
    found, _ = checkpoints.load(tmp_path, "best", {"params": {"sum": np.zeros((), np.float32)}})
    assert found["params"]["sum"] == 2 * sum(range(1, 13))


@pytest.mark.parametrize("which", ["loss", "gradient"])
def test_what_is_not_finite_stops_training_at_its_batch(tmp_path: Path, which: str) -> None:
    """Step 8 goes wrong: step 5's checkpoint stays, and batch 8 is the one that is named."""

    def breaks(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, StepReport]:
        after, (sums, norm) = count(state, batch, key)
        wrong = jnp.where(after.step == 8, jnp.nan, 0)
        if which == "loss":
            return after, StepReport(sums._replace(loss=sums.loss + wrong), norm)
        return after, StepReport(sums, norm + wrong)

    with pytest.raises(DivergedError) as caught:
        train(tmp_path, [1.0], breaks)
    assert caught.value.step == 8
    assert caught.value.batch.src == 8
    assert checkpoints.steps(tmp_path, "latest") == [5]


@pytest.mark.parametrize("last", [10, 12])
def test_parameters_that_are_not_finite_are_neither_validated_nor_saved(
    tmp_path: Path, last: int
) -> None:
    """The update of step 10 or 12 breaks them, which no loss has shown yet."""

    def breaks(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, StepReport]:
        after, report = count(state, batch, key)
        wrong = jnp.where(after.step == last, jnp.nan, 0)
        return after._replace(params={"sum": after.params["sum"] + wrong}), report

    with pytest.raises(DivergedError, match="a parameter is not finite") as caught:
        train(tmp_path, [1.0, 2.0], breaks)  # a validation more would end the scores
    assert caught.value.step == last
    assert checkpoints.steps(tmp_path, "latest") == [5 * ((last - 1) // 5)]


def test_a_validation_loss_that_is_not_finite_stops_training(tmp_path: Path) -> None:
    """The state that the batch of step 10 left is not saved in place of step 5's."""
    with pytest.raises(DivergedError, match="validation loss is nan") as caught:
        train(tmp_path, [1.0, np.nan, 2.0])
    assert (caught.value.step, caught.value.batch.src) == (10, 10)
    assert checkpoints.steps(tmp_path, "latest") == checkpoints.steps(tmp_path, "best") == [5]
