"""How does training scale over devices, and what do they say to each other?

    python -m experiments.scaling --devices 4            # fake CPU devices: right, not fast
    python -m experiments.scaling --preset base --precision bfloat16   # all real devices

The same Transformer takes the same steps on one device and in every layout of data x model shards.
For each: the median time of a step, target tokens a second, the share of the fastest matrix product
of all its devices, what a device must hold, how many messages of each kind a step sends, and how
far the losses are from those of one device. Fake devices share the cores of one machine: their
times say nothing about speed, the rest is true of real ones.

Sizes are a preset's; sentences are random and all equally long; dropout is off, so that losses can
be compared. Commands, devices, durations and what was seen stand in `experiments/README.md`.
"""

import json
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import tyro

from encdec.cli.doctor import matmul_rate
from encdec.config import TrainingConfig, TransformerConfig
from encdec.config.presets import preset
from encdec.models import registry
from encdec.parallel.devices import compute_dtype
from encdec.parallel.layout import Layout
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from encdec.types import InputError
from experiments.benchmark import forward_flops, random_batch

TRAINING = TrainingConfig(warmup=10)
KINDS = ("all-reduce", "reduce-scatter", "all-gather")


@dataclass(frozen=True)
class Options:
    """What is timed."""

    layouts: tuple[str, ...] = ()
    """Layouts; all data x model that use every device, with whole and sliced optimiser (z), if
    left out."""
    devices: int | None = None
    """Pretend that this CPU is as many devices."""
    preset: Literal["tiny", "base", "big"] = "tiny"
    """Sizes of the Transformer."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of products."""
    sentences: int = 64
    """Sentences in a batch."""
    source_length: int = 32
    """Source tokens of a sentence."""
    target_length: int = 32
    """Target tokens of a sentence."""
    vocabulary: int = 8000
    """Tokens in each vocabulary."""
    steps: int = 10
    """Timed steps of each layout."""
    json: Path | None = None
    """File for the same figures."""


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      layout: data x model, with a z where the optimiser is sliced.
      seconds: median of a step.
      tokens_per_second: target tokens.
      peak_share: model FLOPs a second over those of the fastest product on as many devices.
      bytes: what a device must hold.
      messages: collectives a step, by kind.
      loss: nats a token after the last step.
    """

    layout: str
    seconds: float
    tokens_per_second: float
    peak_share: float
    bytes: int
    messages: dict[str, int]
    loss: float


def all_layouts(devices: int) -> list[str]:
    """One device, then every way to use all."""
    found = ["1x1"]
    for model in range(1, devices + 1):
        if devices % model == 0 and devices > 1:
            found.append(f"{devices // model}x{model}")
            if devices > model:
                found.append(f"{devices // model}x{model}z")
    return found


def parse(text: str) -> Layout:
    """`4x2`, or `4x2z` with a sliced optimiser."""
    return Layout.parse(text.removesuffix("z"), shard_optimizer=text.endswith("z"))


def measured(options: Options, text: str, peak: float) -> Row:
    """Compiles and times one layout."""
    layout, config = parse(text), transformer(options)
    layout.check_model(config)
    alone, split = (
        registry.build(config, options.vocabulary, options.vocabulary, shards=axis)
        for axis in (None, layout.axes.model)
    )
    dtype = compute_dtype(options.precision)
    state_sharding = StateSharding(alone, split, optimizer(TRAINING), TRAINING, layout, dtype)
    key = jax.random.key(0)
    state, batch = state_sharding.init(key), state_sharding.shard_batch(random_batch(options))
    program, needed = state_sharding.compiled(state, batch, key, measure=True)
    seconds, loss = [], 0.0
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        state, report = program(state, batch, key)
        sums = state_sharding.unreplicate(report).sums  # waits for the step
        seconds.append(time.perf_counter() - start)
        loss = float(sums.loss / sums.tokens)
    median = statistics.median(seconds[1:])
    tokens = options.sentences * options.target_length
    flops = 3 * forward_flops(config, options) / median
    return Row(
        layout=text,
        seconds=median,
        tokens_per_second=tokens / median,
        peak_share=flops / (peak * layout.size),
        bytes=needed or 0,
        messages=messages(program),
        loss=loss,
    )


def transformer(options: Options) -> TransformerConfig:
    """The preset's sizes, without dropout."""
    size: Any = preset(options.preset, "transformer").model
    return replace(size, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)


def messages(program: Any) -> dict[str, int]:
    """Collectives in a compiled program, by kind; on several processes there is none to look at."""
    text = program.as_text() if hasattr(program, "as_text") else ""
    found = Counter(re.findall(rf"= .*? ({'|'.join(KINDS)})(?:-start)?\(", text))
    return {kind: found[kind] for kind in KINDS}


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown; losses as their distance from the first."""
    lines = [
        "| layout | step, ms | tokens/s | of matmul peak | MiB a device | all-reduce | "
        "reduce-scatter | all-gather | loss off by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sent = " | ".join(str(row.messages[kind]) for kind in KINDS)
        lines.append(
            f"| {row.layout} | {1e3 * row.seconds:.1f} | {row.tokens_per_second:,.0f} | "
            f"{100 * row.peak_share:.0f} % | {row.bytes / 2**20:.1f} | {sent} | "
            f"{abs(row.loss / rows[0].loss - 1):.0e} |"
        )
    return "\n".join(lines)


def main(options: Options) -> None:
    """Prints the table and writes the figures."""
    if options.devices:
        jax.config.update("jax_num_cpu_devices", options.devices)
    dtype = compute_dtype(options.precision)
    peak = matmul_rate(1024 if jax.default_backend() == "cpu" else 8192, dtype)
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, {dtype}", flush=True)
    rows = [
        measured(options, text, peak) for text in options.layouts or all_layouts(jax.device_count())
    ]
    print(table(rows))
    if options.json:
        told = {"device": jax.devices()[0].device_kind, "rows": [row._asdict() for row in rows]}
        options.json.write_text(json.dumps(told) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"scaling.py: {error}")
