"""Training in bfloat16 goes as in float32."""

from dataclasses import replace
from pathlib import Path

import jax
import pytest

from encdec.config import TrainingDeviceConfig
from encdec.config.presets import preset
from encdec.runs.metrics_log import read_metrics
from encdec.training.trainer import train
from encdec.types import Precision


@pytest.mark.slow
@pytest.mark.usefixtures("full_optimization")
@pytest.mark.parametrize("family", ["seq2seq", "attention", "transformer"])
def test_three_hundred_steps_on_dates_reach_the_same_loss(family: str, tmp_path: Path) -> None:
    config = preset("dates", family)
    config = replace(
        config,
        data=replace(config.data, date_sentences=20_000, batch_tokens=1024, num_buckets=1),
        training=replace(
            config.training, max_steps=300, evaluate_every=300, evaluate_sentences=300
        ),
    )
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    losses = {}
    for precision in precisions:
        run = tmp_path / precision
        with jax.numpy_dtype_promotion("standard"):  # Optax promotes
            devices = TrainingDeviceConfig(layout="1x1", precision=precision)
            train(config, run=run, devices=devices, say=lambda _: None)
        rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "valid"]
        losses[precision] = rows[-1]["loss"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["bfloat16"] != losses["float32"]
