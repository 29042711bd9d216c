"""How fast is training on the accelerator that is here, and does bfloat16 cost anything?

    python -m experiments.accelerator
    python -m experiments.accelerator --source train.en --target train.de --json accelerator.json

Speed: the training step of a preset on a batch of equally long sentences, with each precision of
the products: tokens of both sides per second, model FLOP/s as a share of the fastest bfloat16
matrix product of the same device in the same run, and the most memory that the device has held.
Model FLOPs are 3 times those of the products of a forward pass; they are counted for Transformers.

Losses: with `--source` and `--target`, the preset is trained on these files with each precision,
from the same parameters and on the same batches; the mean training loss of each tenth of the steps
is shown, in nats per target token.

On a machine without an accelerator it works too, for a small preset. Commands, devices and results
are in `experiments/README.md`.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro

import encdec
from encdec.cli.main import as_command
from encdec.config import TrainingConfig, TrainingDeviceConfig, TransformerConfig
from encdec.config.presets import preset
from encdec.files import cache_folder
from encdec.models import registry
from encdec.parallel.devices import keep_compiled_programs
from encdec.parallel.layout import SINGLE_DEVICE
from encdec.runs.metrics_log import metric_rows
from encdec.training.optimizer import optimizer
from encdec.training.sharded_state import StateSharding
from encdec.types import Batch, InputError, Precision
from experiments.workload import Shape, forward_flops, matmul_peak, random_batch

Family = Literal["seq2seq", "attention", "transformer"]


@dataclass(frozen=True)
class Options:
    """The workload."""

    models: tuple[Family, ...] = ("transformer",)
    """Families of the models."""
    preset: Literal["tiny", "base", "big"] = "base"
    """Their sizes."""
    precisions: tuple[Precision, ...] = ("bfloat16", "tf32", "float32")
    """What matrix products multiply."""
    sentences: int = 384
    """Sentences of a batch."""
    length: int = 64
    """Source tokens of a sentence, and target tokens."""
    vocabulary: int = 32000
    """Tokens of the joint vocabulary."""
    rounds: int = 20
    """Timed steps."""
    source: Path | None = None
    """Training text for the losses."""
    target: Path | None = None
    """Its translation."""
    steps: int = 500
    """Updates for the losses."""
    json: Path | None = None
    """JSON file for the results."""

    def __post_init__(self) -> None:
        if (self.source is None) != (self.target is None):
            raise InputError("source and target go together: give both, or neither")
        least = {"sentences": 1, "length": 1, "rounds": 1, "steps": 10, "vocabulary": 9}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise InputError(
                    f"{name} = {getattr(self, name)} cannot be used: give at least {minimum}"
                )


class Row(NamedTuple):
    """Training of one model with one precision.

    Attributes:
      model, precision: which.
      milliseconds: the median duration of a step.
      tokens: source and target tokens per second.
      share: model FLOP/s over the fastest bfloat16 product; None where they are not counted.
      program: bytes that the compiled step needs.
      peak: the most bytes that the process has held on the device so far; None if it cannot tell.
      compile: seconds of compilation.
    """

    model: str
    precision: str
    milliseconds: float
    tokens: float
    share: float | None
    program: int | None
    peak: int | None
    compile: float


def training_speed(options: Options, name: str, precision: Precision, peak: float) -> Row:
    """Times the training step of a model."""
    size = preset(options.preset, name).model
    training = TrainingConfig()
    model = registry.build(
        size, options.vocabulary, options.vocabulary, joint=True, precision=precision
    )
    states = StateSharding(model, model, optimizer(training), training, SINGLE_DEVICE)
    shape = Shape(options.sentences, options.length, options.length, options.vocabulary)
    batch: Batch = states.shard_batch(random_batch(shape))
    key = jax.random.key(1)
    state = states.init(jax.random.key(0))
    start = time.perf_counter()
    step, program = states.compiled(state, batch, key, measure=True)
    compiled = time.perf_counter() - start
    seconds = []
    for round_ in range(options.rounds + 3):
        start = time.perf_counter()
        state, report = step(state, batch, key)
        jax.block_until_ready((state, report))
        if round_ >= 3:
            seconds.append(time.perf_counter() - start)
    sums = states.unreplicate(report).sums
    if not np.isfinite(sums.loss):
        raise InputError(f"{name} {precision}: the loss is {sums.loss}")
    median = statistics.median(seconds)
    flops = 3 * forward_flops(size, shape) if isinstance(size, TransformerConfig) else None
    memory = jax.devices()[0].memory_stats() or {}
    return Row(
        name,
        precision,
        1000 * median,
        2 * options.sentences * options.length / median,
        None if flops is None else flops / median / peak,
        program,
        memory.get("peak_bytes_in_use"),
        compiled,
    )


def losses(options: Options, folder: Path) -> Iterator[tuple[str, str, list[float], float]]:
    """Model, precision, the mean loss of each tenth of the steps, and minutes of training."""
    for name in options.models:
        config = preset(options.preset, name, options.steps)
        every = options.steps // 10
        training = replace(
            config.training, log_every=every, evaluate_every=options.steps, evaluate_sentences=100
        )
        text: dict[str, Any] = {
            "source": (str(options.source),),
            "target": (str(options.target),),
            "vocabulary_size": 8000,
        }
        # One shape of batches, since each is compiled with each precision.
        config = replace(
            config, training=training, data=replace(config.data, num_buckets=1, **text)
        )
        for precision in options.precisions:
            run = folder / f"{name}-{precision}"
            devices = TrainingDeviceConfig(precision=precision)
            encdec.train(config, run=run, devices=devices)
            rows = metric_rows(run / "metrics.jsonl")
            yield name, precision, [row["loss"] for row in rows.train], rows.minutes


HEAD = (
    f"{'model':12}{'precision':11}{'ms':>8}{'tokens/s':>12}{'of peak':>9}{'program':>10}"
    f"{'held':>8}{'compiled':>10}"
)


def line(row: Row) -> str:
    """One line of the table; memory in GiB."""
    share = "" if row.share is None else f"{row.share:.1%}"
    program, peak = ("" if x is None else f"{x / 2**30:.2f}" for x in (row.program, row.peak))
    return (
        f"{row.model:12}{row.precision:11}{row.milliseconds:8.1f}{row.tokens:12,.0f}{share:>9}"
        f"{program:>10}{peak:>8}{row.compile:8.1f} s"
    )


def main(options: Options) -> None:
    """Measures and prints both tables, and writes the file."""
    keep_compiled_programs(cache_folder())
    peak = matmul_peak("bfloat16")
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}, bfloat16 products {peak / 1e12:.1f} TFLOP/s")
    print(f"{options.preset}, {options.sentences} x ({options.length} + {options.length}) tokens")
    print(HEAD, flush=True)
    rows = []
    for name in options.models:
        for precision in options.precisions:
            rows.append(training_speed(options, name, precision, peak))
            print(line(rows[-1]), flush=True)
    curves = []
    if options.source is not None:
        with tempfile.TemporaryDirectory() as folder:
            for name, precision, values, minutes in losses(options, Path(folder)):
                curves.append((name, precision, values, minutes))
                shown = " ".join(f"{value:.4f}" for value in values)
                print(f"{name:12}{precision:11}{shown}  ({minutes} minutes)", flush=True)
    if options.json is not None:
        found = {
            "device": device,
            "jax": jax.__version__,
            "peak": peak,
            "speed": [row._asdict() for row in rows],
            "losses": curves,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with as_command("accelerator.py"):
        main(tyro.cli(Options, description=__doc__))
