"""What ends a run early, and what is left of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from encdec.config import DataConfig, RunConfig, Seq2SeqConfig, TrainingConfig
from encdec.data.corpus import Corpus
from encdec.runs import checkpoints
from encdec.runs.metrics_log import read_metrics
from encdec.training.trainer import train
from encdec.types import InputError


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
        yield


def config(**training: object) -> RunConfig:
    settings = {"max_steps": 12, "evaluate_every": 3, "evaluate_sentences": 2, "log_every": 1}
    return RunConfig(
        Seq2SeqConfig(embed=4, hidden=6),
        DataConfig(date_sentences=60, vocabulary="chars", batch_tokens=256, num_buckets=1),
        TrainingConfig(**settings | training),
    )


def test_a_loss_that_is_not_finite_names_its_step_and_its_batch(tmp_path: Path) -> None:
    run = tmp_path / "run"
    wild = config(learning_rate=1e37, clip_norm=0, schedule="constant", warmup=5)
    with pytest.raises(InputError, match=r"step \d+: the loss is .*learning_rate") as caught:
        train(wild, run=run, say=lambda line: None)
    step = int(str(caught.value).split()[1].rstrip(":"))
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")][-1] == step - 1
    kept = checkpoints.steps(run, "latest")
    assert kept == ([3 * ((step - 1) // 3)] if step > 3 else [])
    rows = [json.loads(line) for line in (run / "diverged.jsonl").read_text().splitlines()]
    assert rows
    for _, date in rows:  # sentences of the corpus, as text
        assert len(date) == len("1979-05-03")


def validations_find(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Lets each validation find the next BLEU."""
    coming = iter(scores)
    monkeypatch.setattr(
        "encdec.training.validation.evaluate",
        lambda *_, **__: SimpleNamespace(
            values={"loss": 1.0, "bleu": next(coming)},
            metrics=SimpleNamespace(sentences=2),
            seconds=0.1,
        ),
    )


def test_a_run_that_lost_patience_has_ended(tmp_path: Path, monkeypatch) -> None:
    validations_find(monkeypatch, [0.5, 0.4, 0.3])
    said: list[str] = []
    assert train(config(patience=1), run=tmp_path, say=said.append).trained_steps == 6
    assert "stopped at step 6" in said[-1]
    assert checkpoints.steps(tmp_path, "best") == [3]
    assert train(config(patience=1), run=tmp_path, say=said.append).trained_steps == 0
    assert "stopped at step 6" in said[-1]


def test_best_parameters_that_were_removed_are_missed(tmp_path: Path, monkeypatch) -> None:
    """Those of step 3 are the best; the state of step 6 cannot make them again."""
    validations_find(monkeypatch, [0.5, 0.4, 0.3, 0.2])
    said: list[str] = []
    train(config(max_steps=6, average_last=2), run=tmp_path, say=said.append)
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    with pytest.raises(InputError, match=r"has lost its best parameters, checkpoints/best/3: copy"):
        train(config(max_steps=6, average_last=2), run=tmp_path, say=said.append)
    assert "checkpoints/recent" not in "".join(said)
    shutil.rmtree(tmp_path / "checkpoints" / "recent")
    train(config(max_steps=12, average_last=2), run=tmp_path, say=said.append)
    assert "has lost checkpoints/recent: the next averages are of fewer" in "".join(said)
    assert "has lost its best parameters, checkpoints/best/3: those of the next" in "".join(said)
    assert checkpoints.steps(tmp_path, "best") == [9]


@pytest.mark.parametrize(
    ("words", "metric", "is_said"), [(1, "bleu", True), (4, "bleu", False), (1, "chrf", False)]
)
def test_a_metric_that_cannot_move_is_said(
    tmp_path: Path, words: int, metric: str, is_said: bool
) -> None:
    """BLEU is a mean of precisions of up to four words, 0 where no target has as many."""
    pairs = [(f"{i}", " ".join([f"{i + 1}"] * words)) for i in range(40)]
    made = config(max_steps=1, best_metric=metric)
    made = replace(made, data=replace(made.data, date_sentences=DataConfig.date_sentences))
    said: list[str] = []
    train(made, Corpus(pairs, valid=pairs), run=tmp_path, say=said.append)
    assert any("best_metric = chrf can tell them apart" in line for line in said) == is_said


def test_a_run_says_where_and_when_it_trained(tmp_path: Path) -> None:
    train(config(max_steps=3), run=tmp_path, say=lambda line: None)
    start, *rest = read_metrics(tmp_path / "metrics.jsonl")
    assert start["kind"] == "start"
    assert {"device", "jax", "date"} <= start.keys()
    assert all(row["seconds"] > 0 for row in rest if row["kind"] == "train")
