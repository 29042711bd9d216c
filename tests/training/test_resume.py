"""A run that is killed in mid-training and resumed ends as one that was not, to the last bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from encdec.config import RunConfig
from encdec.models import registry
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.metrics_log import read_metrics
from encdec.runs.parameters import abstract_params, build_model
from encdec.training.optimizer import optimizer
from encdec.training.step import init_state

SETTINGS = [
    *("--model", "transformer", "--layers", "1", "--width", "16", "--feed-forward", "24"),
    *("--heads", "2", "--dropout", "0.1", "--date-sentences", "600", "--batch-tokens", "900"),
    *("--max-steps", "60", "--evaluate-every", "15", "--log-every", "5"),
    *("--evaluate-sentences", "2", "--average-last", "2"),
]


def command(run: Path) -> list[str]:
    return [sys.executable, "-m", "encdec.cli", "train", "--run", str(run), *SETTINGS]


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(cache)}


def final(run: Path) -> list[np.ndarray]:
    """Parameters, optimiser and step of the latest checkpoint."""
    opened = runs.load(run)
    config: RunConfig = opened.config
    like = jax.eval_shape(
        lambda: init_state(
            registry.init(build_model(opened), jax.random.key(0)),
            optimizer(config.training),
            config.training,
        )
    )
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.leaves(checkpoints.load(run, "latest", like)[0])


def kill_in_mid_training(run: Path, cache: Path) -> int:
    """Starts a run, kills it some steps after its second checkpoint, and gives the step of it."""
    with (cache / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command(run), stdout=subprocess.DEVNULL, stderr=stderr, env=environment(cache)
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        rows = read_metrics(run / "metrics.jsonl")
        if rows and rows[-1]["step"] > 30 and rows[-1]["kind"] == "train":
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, (cache / "stderr").read_text()
    (step,) = checkpoints.steps(run, "latest")
    assert step < 60
    return step


@pytest.mark.slow
def test_killed_and_resumed_is_never_killed(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = {"check": True, "capture_output": True, "env": environment(tmp_path)}
    subprocess.run(command(whole), **run)
    step = kill_in_mid_training(killed, tmp_path)
    resumed = subprocess.run([*command(killed)], **run)
    assert f"from step {step} of 60" in resumed.stderr.decode()
    for one, other in zip(final(whole), final(killed), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = [
        [
            (row["kind"], row["step"], row["loss"])
            for row in read_metrics(run / "metrics.jsonl")
            if row["kind"] != "start"
        ]
        for run in (whole, killed)
    ]
    assert rows[0] == rows[1]
    for kind in ("best", "recent"):
        assert checkpoints.steps(whole, kind) == checkpoints.steps(killed, kind)
    like = {"params": abstract_params(runs.load(whole))}
    one, other = (checkpoints.load(run, "best", like)[0] for run in (whole, killed))
    jax.tree.map(np.testing.assert_array_equal, one, other)
