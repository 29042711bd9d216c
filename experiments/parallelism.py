"""Why did the Transformer replace recurrence? Training time per token against sequence length.

    python experiments/parallelism.py --json parallelism.json --figure parallelism.png

A recurrent network computes its time steps one after another, however long the sentence and
however parallel the device. A Transformer computes all positions at once, but its attention grows
with the square of the length. The sizes are those of the `tiny` preset; every batch has the same
number of target tokens, so longer sentences mean fewer of them. Times are medians over steps, with
compilation excluded; the three systems run in turn.

On a CPU, whose few cores are busy in any case, the curves show how much each system computes; on a
GPU or TPU they show how much of the device waits for the previous time step. Commands, devices,
durations and results are in `experiments/README.md`.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from encdec.cli.main import as_command
from encdec.config import TrainingConfig
from encdec.config.presets import preset
from encdec.models import registry
from encdec.plots.attention import save_figure
from encdec.plots.curves import line_figure
from encdec.training.optimizer import optimizer
from encdec.training.step import init_state, train_step
from encdec.types import Batch, InputError, SpecialIds

_, START, END, UNKNOWN = SpecialIds()
FAMILIES = ("seq2seq", "attention", "transformer")

TRAINING = TrainingConfig()


@dataclass(frozen=True)
class Options:
    """The workload."""

    lengths: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    """Sentence lengths, in tokens of either side."""
    tokens: int = 2048
    """Target tokens per step."""
    vocabulary: int = 2000
    """Tokens in each vocabulary; few, so that the output layer does not dominate the time."""
    repeats: int = 7
    """Timed steps for each system and length."""
    json: Path | None = None
    """JSON file for the results."""
    figure: Path | None = None
    """File for the figure, .png or .svg."""


def random_batch(options: Options, length: int) -> Batch:
    """Random sentences of `length` tokens, without padding."""
    rng = np.random.default_rng(length)
    rows = max(1, options.tokens // length)
    src, tgt = (
        rng.integers(UNKNOWN + 1, options.vocabulary, (rows, length + more)).astype(np.int32)
        for more in (0, 1)
    )
    src[:, -1], tgt[:, 0], tgt[:, -1] = END, START, END
    return Batch(src, np.ones(src.shape, bool), tgt, np.ones(tgt[:, 1:].shape, bool))


def training_step(options: Options, model_name: str, length: int) -> Callable[[], Any]:
    """A function that makes one update on sentences of a length and waits for it."""
    size = preset("tiny", model_name).model
    model = registry.build(size, options.vocabulary, options.vocabulary)
    adam = optimizer(TRAINING)
    state = init_state(registry.init(model, jax.random.key(0)), adam, TRAINING)
    update = jax.jit(partial(train_step, model, adam, TRAINING))
    batch, key = jax.device_put((random_batch(options, length), jax.random.key(1)))
    return lambda: jax.block_until_ready(update(state, batch, key))


def measure(options: Options) -> dict[str, list[float]]:
    """Measures microseconds per target token of each system at each length."""
    microseconds: dict[str, list[float]] = {name: [] for name in FAMILIES}
    for length in options.lengths:
        steps = {name: training_step(options, name, length) for name in FAMILIES}
        for step in steps.values():
            step()  # compiles
        seconds: dict[str, list[float]] = {name: [] for name in FAMILIES}
        for _ in range(options.repeats):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
        tokens = max(1, options.tokens // length) * length
        for name, times in seconds.items():
            microseconds[name].append(1e6 * statistics.median(times) / tokens)
        row = "  ".join(f"{name} {microseconds[name][-1]:8.1f}" for name in FAMILIES)
        print(f"{length:4d} tokens: {row}  microseconds per token", flush=True)
    return microseconds


def main(options: Options) -> None:
    """Measures, then writes and draws the results."""
    if not options.lengths or min(options.lengths) < 2:
        raise InputError("lengths must be 2 tokens or more each")
    microseconds = measure(options)
    if options.json:
        device = jax.devices()[0].device_kind
        tree = {"lengths": options.lengths, "device": device, **microseconds}
        options.json.write_text(json.dumps(tree) + "\n", encoding="utf-8")
    if options.figure:
        series = {name: (list(options.lengths), values) for name, values in microseconds.items()}
        labels = ("sentence length, tokens", "training, µs per token")
        save_figure(line_figure(series, *labels, logarithmic=True), options.figure)


if __name__ == "__main__":
    with as_command("parallelism.py"):
        main(tyro.cli(Options, description=__doc__))
