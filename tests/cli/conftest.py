"""Fixtures of the commands' tests."""

from pathlib import Path

import pytest

from encdec.runs.metrics_log import append_metrics
from tests.small_run import small_run


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A run that was trained, validated twice and tested twice, as its metrics say."""
    path = small_run(tmp_path / "run").path
    for row in (
        {"kind": "start", "step": 0, "device": "1 x abacus", "jax": "0.9", "date": "2026-11-01"},
        {"kind": "train", "step": 5, "loss": 4.0, "seconds": 90.0},
        {"kind": "valid", "step": 5, "loss": 3.5, "bleu": 11.0},
        {"kind": "train", "step": 10, "loss": 3.0, "seconds": 90.0},
        {"kind": "valid", "step": 10, "loss": 3.25, "bleu": 10.0},
        {"kind": "test", "step": 5, "name": "a", "beam": 1, "bleu": 1.0},
        {"kind": "test", "step": 5, "name": "a", "beam": 5, "bleu": 12.0},
    ):
        append_metrics(path / "metrics.jsonl", row)
    return path
