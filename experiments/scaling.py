"""How does training scale over devices, and how much do they communicate?

    python -m experiments.scaling --devices 4            # simulated CPU devices
    python -m experiments.scaling --preset base --precision bfloat16   # all real devices

The same Transformer takes the same steps on one device and in every layout of data x model shards.
The table has, for each layout, the median time of a step, target tokens per second, the fraction of
the FLOP/s of the fastest matrix product, the memory that each device needs, the number of
collectives of each kind per step, and the difference of the loss from that of one device. Simulated
devices run on the cores of one machine: their times say nothing about speed, but the other numbers
are those of real devices.

Sizes are a preset's; sentences are random and all equally long; dropout is off, so that losses can
be compared. Commands, devices, durations and results are in `experiments/README.md`.
"""

import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import tyro

from encdec.cli.doctor import matmul_rate
from encdec.cli.main import as_command
from encdec.config import TrainingConfig, TransformerConfig
from encdec.config.presets import preset
from encdec.models import registry
from encdec.parallel.devices import chosen_precision
from encdec.parallel.layout import Layout
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from experiments.workload import Shape, forward_flops, random_batch

TRAINING = TrainingConfig(warmup=10)
KINDS = ("all-reduce", "reduce-scatter", "all-gather")


@dataclass(frozen=True)
class Options:
    """The workload, and the layouts to measure."""

    layouts: tuple[str, ...] = ()
    """Layouts; by default one device, and every data x model that uses all devices, also with a
    sharded optimizer (z)."""
    devices: int | None = None
    """Number of devices that this CPU simulates."""
    preset: Literal["tiny", "base", "big"] = "tiny"
    """Sizes of the Transformer."""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    """Precision of matrix products."""
    sentences: int = 64
    """Sentences per batch."""
    source_length: int = 32
    """Source tokens per sentence."""
    target_length: int = 32
    """Target tokens per sentence."""
    vocabulary: int = 8000
    """Tokens in each vocabulary."""
    steps: int = 10
    """Timed steps of each layout."""
    json: Path | None = None
    """JSON file for the results."""


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      layout: data x model, with a z where the optimizer is sharded.
      seconds: the median duration of a step.
      tokens_per_second: target tokens per second.
      peak_fraction: model FLOP/s as a fraction of those of the fastest matrix product on as many
        devices.
      bytes: the memory that each device needs.
      collectives: the number of collectives per step, by kind.
      loss: nats per token, of the last step.
    """

    layout: str
    seconds: float
    tokens_per_second: float
    peak_fraction: float
    bytes: int
    collectives: dict[str, int]
    loss: float


def all_layouts(devices: int) -> list[str]:
    """The layout of one device, then every layout of all devices."""
    layouts = ["1x1"]
    for model in range(1, devices + 1):
        if devices % model == 0 and devices > 1:
            layouts.append(f"{devices // model}x{model}")
            if devices > model:
                layouts.append(f"{devices // model}x{model}z")
    return layouts


def parse(text: str) -> Layout:
    """The layout `4x2`, or `4x2z` with a sharded optimizer."""
    return Layout.parse(text.removesuffix("z"), shard_optimizer=text.endswith("z"))


def measure(options: Options, text: str, peak: float) -> Row:
    """Compiles and times the training step in one layout."""
    layout, config = parse(text), transformer(options)
    layout.check_model(config)
    full_model, model_shard = (
        registry.build(
            config,
            options.vocabulary,
            options.vocabulary,
            shards=axis,
            precision=chosen_precision(options.precision),
        )
        for axis in (None, layout.axes.model)
    )
    state_sharding = StateSharding(full_model, model_shard, optimizer(TRAINING), TRAINING, layout)
    key = jax.random.key(0)
    lengths = options.source_length, options.target_length
    shape = Shape(options.sentences, *lengths, options.vocabulary)
    state, batch = state_sharding.init(key), state_sharding.shard_batch(random_batch(shape))
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
    flops = 3 * forward_flops(config, shape) / median
    return Row(
        layout=text,
        seconds=median,
        tokens_per_second=tokens / median,
        peak_fraction=flops / (peak * layout.size),
        bytes=needed or 0,
        collectives=count_collectives(program),
        loss=loss,
    )


def transformer(options: Options) -> TransformerConfig:
    """The preset's sizes, without dropout."""
    size: Any = preset(options.preset, "transformer").model
    return replace(size, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)


def count_collectives(program: Any) -> dict[str, int]:
    """The number of collectives in a compiled program, by kind; 0 if its text is not available."""
    text = program.as_text() if hasattr(program, "as_text") else ""
    counts = Counter(re.findall(rf"= .*? ({'|'.join(KINDS)})(?:-start)?\(", text))
    return {kind: counts[kind] for kind in KINDS}


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; losses as relative differences from the first row."""
    lines = [
        "| layout | step, ms | tokens/s | of matmul peak | MiB per device | all-reduce | "
        "reduce-scatter | all-gather | loss difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sent = " | ".join(str(row.collectives[kind]) for kind in KINDS)
        lines.append(
            f"| {row.layout} | {1e3 * row.seconds:.1f} | {row.tokens_per_second:,.0f} | "
            f"{100 * row.peak_fraction:.0f} % | {row.bytes / 2**20:.1f} | {sent} | "
            f"{abs(row.loss / rows[0].loss - 1):.0e} |"
        )
    return "\n".join(lines)


def main(options: Options) -> None:
    """Prints the table and writes the results."""
    if options.devices:
        jax.config.update("jax_num_cpu_devices", options.devices)
    precision = chosen_precision(options.precision)
    peak = matmul_rate(1024 if jax.default_backend() == "cpu" else 8192, precision)
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, {precision}", flush=True)
    rows = [
        measure(options, text, peak) for text in options.layouts or all_layouts(jax.device_count())
    ]
    print(table(rows))
    if options.json:
        tree = {"device": jax.devices()[0].device_kind, "rows": [row._asdict() for row in rows]}
        options.json.write_text(json.dumps(tree) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with as_command("scaling.py"):
        main(tyro.cli(Options, description=__doc__))
