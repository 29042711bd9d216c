"""Why did the Transformer replace recurrence? Training time a token against sequence length.

    python experiments/parallelism.py --json parallelism.json --figure parallelism.png

A recurrent network takes its time steps one after another, however long the sentence and however
wide the device; a Transformer takes all positions at once, and pays for it with attention that
grows with the square of the length. The sizes are the `tiny` preset's; a step always holds the
same number of target tokens, so longer sentences are fewer. Times are medians of steps that were
compiled before, the three systems in turn.

On a CPU, whose few cores are busy either way, the curves say what each system computes; on a GPU
or TPU they say how much of the device waits for the last time step. Commands, devices, durations
and what was seen stand in `experiments/README.md`.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from encdec.config import TrainingConfig
from encdec.config.presets import preset
from encdec.models import registry
from encdec.plots.attention import save_figure
from encdec.plots.curves import line_figure
from encdec.training.optimizer import optimizer
from encdec.training.step import init_state, train_step
from encdec.types import Batch, InputError, SpecialIds

_, BOS, EOS, UNK = SpecialIds()
FAMILIES = ("seq2seq", "attention", "transformer")

TRAINING = TrainingConfig()


@dataclass(frozen=True)
class Options:
    """What is timed."""

    lengths: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    """Tokens of a source, and of a target."""
    tokens: int = 2048
    """Target tokens in a step."""
    vocabulary: int = 2000
    """Tokens in each vocabulary; few, so that the output layer does not hide the rest."""
    repeats: int = 7
    """Timed steps of each system and length."""
    json: Path | None = None
    """Write the figures here."""
    figure: Path | None = None
    """Draw them here."""


def random_batch(options: Options, length: int) -> Batch:
    """Full sentences of one length."""
    rng = np.random.default_rng(length)
    rows = max(1, options.tokens // length)
    src, tgt = (
        rng.integers(UNK + 1, options.vocabulary, (rows, length + more)).astype(np.int32)
        for more in (0, 1)
    )
    src[:, -1], tgt[:, 0], tgt[:, -1] = EOS, BOS, EOS
    return Batch(src, np.ones(src.shape, bool), tgt, np.ones(tgt[:, 1:].shape, bool))


def training_step(options: Options, model_name: str, length: int) -> Callable[[], Any]:
    """One update of a system on sentences of a length, done when it returns."""
    size = preset("tiny", model_name).model
    model = registry.build(size, options.vocabulary, options.vocabulary)
    adam = optimizer(TRAINING)
    state = init_state(registry.init(model, jax.random.key(0)), adam, TRAINING)
    update = jax.jit(partial(train_step, model, adam, TRAINING))
    batch, key = jax.device_put((random_batch(options, length), jax.random.key(1)))
    return lambda: jax.block_until_ready(update(state, batch, key))


def measure(options: Options) -> dict[str, list[float]]:
    """Microseconds a target token of each system at each length."""
    found: dict[str, list[float]] = {name: [] for name in FAMILIES}
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
            found[name].append(1e6 * statistics.median(times) / tokens)
        row = "  ".join(f"{name} {found[name][-1]:8.1f}" for name in FAMILIES)
        print(f"{length:4d} tokens: {row}  microseconds a token", flush=True)
    return found


def main(options: Options) -> None:
    """Prints the figures, writes and draws them."""
    if not options.lengths or min(options.lengths) < 2:
        raise InputError("lengths must be 2 tokens or more each")
    found = measure(options)
    if options.json:
        told = {"lengths": options.lengths, "device": jax.devices()[0].device_kind, **found}
        options.json.write_text(json.dumps(told) + "\n", encoding="utf-8")
    if options.figure:
        series = {name: (list(options.lengths), values) for name, values in found.items()}
        labels = ("sentence length, tokens", "training, µs a token")
        save_figure(line_figure(series, *labels, logarithmic=True), options.figure)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"parallelism.py: {error}")
