"""Signals and the clock ask for checkpoints; a run that goes on from one equals an unbroken one."""

import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from encdec.config import TrainingDeviceConfig
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.metrics_log import read_metrics
from encdec.runs.parameters import abstract_params
from encdec.training.early_stopping import EarlyStopping
from encdec.training.interruption import Interrupted, Interruption, Pause
from encdec.training.resume_point import ResumePoint, WindowSums
from encdec.training.trainer import train
from encdec.types import InputError
from tests.training.test_trainer import config, standard_promotion  # noqa: F401


def test_the_clock_asks_for_checkpoints() -> None:
    seconds = 0.0
    asks = Interruption(2, lambda: seconds)
    assert asks.after(1) == Pause()
    seconds = 119.0
    assert asks.after(2) == Pause()
    seconds = 120.0
    assert asks.after(3) == Pause(save=True)
    asks.saved()
    assert asks.after(4) == Pause()
    seconds = 240.0
    assert asks.after(5) == Pause(save=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_acts_at_once(number: signal.Signals) -> None:
    before = signal.signal(number, lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
    try:
        with Interruption(10) as asks:
            signal.raise_signal(number)
            assert asks.after(1) == Pause(True, number)
            with pytest.raises(ZeroDivisionError):
                signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption(10) as asks:
            signal.raise_signal(signal.SIGINT)
            assert asks.after(1) == Pause()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_note_survives_json_and_a_changed_one_is_refused() -> None:
    point = ResumePoint(EarlyStopping(3.5, 2, 40), WindowSums(1.5, 2, 3, 4, 5))
    note = point.to_note()
    assert ResumePoint.from_note(note, "") == point
    earlier = {"best": 3.5, "waited": 2, "step": 40}  # before windows were kept
    assert ResumePoint.from_note(earlier, "").stopping == EarlyStopping(**earlier)
    for changed in (
        None,
        [],
        {"best": 1},
        {"stopping": None},
        {"stopping": {"bets": 1}},
        {"stopping": {"step": 1.5}},
        {"stopping": {"waited": None}},
        {"window": {"loss": "1"}},
        {"window": {"loss": float("nan")}},
    ):
        with pytest.raises(InputError, match="HERE is damaged"):
            ResumePoint.from_note(changed, "HERE")


def final(run: Path) -> list[np.ndarray]:
    like = {"params": abstract_params(runs.load(run))}
    return jax.tree.leaves([checkpoints.load(run, kind, like)[0] for kind in ("latest", "best")])


def rows(run: Path) -> list[tuple[object, ...]]:
    kinds = ("loss", "accuracy", "gradient_norm", "bleu")
    return [
        (row["kind"], row["step"], *map(row.get, kinds))
        for row in read_metrics(run / "metrics.jsonl")
        if row["kind"] != "start"
    ]


def test_interrupted_and_resumed_is_never_interrupted(tmp_path: Path) -> None:
    """SIGTERM after step 5, between two rows of metrics and two validations."""
    settings = config(log_every=4, evaluate_every=6, average_last=2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    said: list[str] = []
    train(settings, run=whole, say=said.append)
    assert any(line.startswith("step 6, validation: loss ") for line in said)

    def terminate(step: int, *_: object) -> None:
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"SIGTERM at step 4 of 12: .* resumes"):
        train(settings, run=broken, say=lambda line: None, callbacks=[terminate])
    assert checkpoints.steps(broken, "latest") == [4]
    assert not (broken / "lock").exists()
    # A checkpoint after each step: the rows are those of whole windows all the same.
    often = TrainingDeviceConfig(save_minutes=1e-9)
    seen: list[int] = []

    def stop(step: int, row: dict, state: object) -> bool:
        seen.extend(checkpoints.steps(broken, "latest"))
        return step == 8

    train(settings, run=broken, say=lambda line: None, callbacks=[stop], devices=often)
    assert checkpoints.steps(broken, "latest") == [8]
    assert seen == [5, 7]  # validations and rows come before the save of their step
    train(settings, run=broken, say=lambda line: None)
    for one, other in zip(final(whole), final(broken), strict=True):
        np.testing.assert_array_equal(one, other)
    assert rows(whole) == rows(broken)
    for kind in ("best", "recent"):
        assert checkpoints.steps(whole, kind) == checkpoints.steps(broken, kind)


def test_a_row_of_loss_covers_the_steps_before_a_kill_too(tmp_path: Path) -> None:
    """A checkpoint at a validation between two rows keeps the sums of the row."""
    settings = config(log_every=4, evaluate_every=3)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(settings, run=whole, say=lambda line: None)

    def die(step: int, row: dict, state: object) -> None:
        if step == 8:
            raise SystemExit  # as a kill: nothing is saved

    with pytest.raises(SystemExit):
        train(settings, run=broken, say=lambda line: None, callbacks=[die])
    assert checkpoints.steps(broken, "latest") == [6]
    train(settings, run=broken, say=lambda line: None)
    assert rows(whole) == rows(broken)


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_that_cannot_be_used(minutes: float) -> None:
    with pytest.raises(InputError, match=r"save_minutes = .* a number above 0"):
        TrainingDeviceConfig(save_minutes=minutes)
