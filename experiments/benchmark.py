"""How fast are training and search, compared with the same workload in plain PyTorch?

    pip install "encdec[peers]"   # PyTorch; without it only encdec is timed
    python -m experiments.benchmark --source multi30k/train.en --target multi30k/train.de
    python -m experiments.benchmark --json benchmark.json

Workload: with `--source` and `--target` random pairs of a text, subwords of 8,000 on each side,
sorted by the length of their sources and cut into batches, as both frameworks' users would; without
them one batch of random sentences of one length. Float32; models of the `tiny` preset's sizes, with
dropout 0.1 everywhere that nn.Transformer has it. Training: label smoothing 0.1, clipping at 1.0,
Adam, inverse square root after a warm-up. Search: random parameters, where the end token is never
likely, so that each translation has as many tokens as the target of its pair. PyTorch searches a
batch until its last sentence has ended, with the keys and values of earlier tokens kept; `encdec`
searches it as `translate` does. The docstring of `torch_peers.py` lists the differences of the
models.

After two calls each, the frameworks run in turn; figures are medians. The "first call" includes
compilation, of a program for each shape. Model FLOPs are computed from the shapes of the matrices,
padding included, as 3 times the forward pass (one product per matrix forwards, two backwards);
their rate is given as a fraction of that of the fastest float32 matrix product of JAX in the same
run. The machine must be idle: another busy process makes both frameworks several times slower. On a
GPU set XLA_PYTHON_CLIENT_PREALLOCATE=false, so that both frameworks find memory.

Results, with device and date, stand in `README.md`. Both frameworks keep the memory that they free
(`encdec.parallel.process_memory`), so page faults are no part of the times.
"""

import dataclasses
import importlib.util
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from encdec.cli.main import as_command
from encdec.config import ModelConfig, SearchOptions, TrainingConfig, TransformerConfig
from encdec.config.presets import preset
from encdec.inference.decoding import Model, Shared, cache_bytes
from encdec.inference.segments import find
from encdec.models import registry
from encdec.parallel import sharding
from encdec.parallel.layout import SINGLE_DEVICE
from encdec.parallel.process_memory import forget_programs
from encdec.search.methods import Sentences, split
from encdec.search.types import SearchResult
from encdec.training.optimizer import optimizer
from encdec.training.step import TrainState, init_state, train_step
from encdec.types import Batch, InputError, Params, SpecialIds
from experiments.workload import (
    END,
    UNKNOWN,
    Run,
    Shape,
    clock,
    forward_flops,
    matmul_peak,
    random_batch,
    shape_of,
    text_batches,
)

DROPOUT = 0.1
BEAMS = 5
TRAINING = TrainingConfig()  # label smoothing 0.1, clip 1.0, inverse-sqrt
NEVER = -1e9
"""The bias of a token that is never chosen."""


@dataclass(frozen=True)
class Options:
    """The workload."""

    models: tuple[Literal["seq2seq", "attention", "transformer"], ...] = (
        "seq2seq",
        "attention",
        "transformer",
    )
    """Model families."""
    source: Path | None = None
    """Text of real sentences, one in each line."""
    target: Path | None = None
    """Its translation."""
    batches: int = 8
    """Batches of that text; without one there is a single batch."""
    sentences: int = 128
    """Sentences per batch."""
    source_length: int = 32
    """Source tokens per sentence, where there is no text."""
    target_length: int = 32
    """Target tokens per sentence, where there is no text."""
    vocabulary: int = 8000
    """Tokens in each vocabulary."""
    rounds: int = 10
    """Timed runs of each framework."""
    precision: Literal["float32", "tf32"] = "float32"
    """Float32 matrix products: full precision, or TensorFloat-32 on a GPU."""
    json: Path | None = None
    """JSON file for the results, with the time of every run."""

    def __post_init__(self) -> None:
        ones = ("batches", "sentences", "source_length", "target_length", "rounds")
        least = dict.fromkeys(ones, 1) | {"vocabulary": BEAMS + UNKNOWN}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise InputError(
                    f"{name} = {getattr(self, name)} cannot be used: give at least {minimum}"
                )
        if (self.source is None) != (self.target is None):
            raise InputError("source and target go together: give both, or neither")


MakeRuns = Callable[[ModelConfig, Sequence[Batch], Options], dict[str, Run]]
"""Makes the runs of one framework, by task; each goes through all batches."""


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      model, task, framework: the names of the workload and the framework.
      seconds: the duration of each round.
      per_second: target tokens (training) or sentences (search) per second.
      peak_fraction: of training, model FLOP/s divided by those of the fastest matrix product.
      first_call: duration of the first call in seconds, compilation included.
    """

    model: str
    task: str
    framework: str
    seconds: list[float]
    per_second: float
    peak_fraction: float | None
    first_call: float


def model_config(name: str) -> ModelConfig:
    """The `tiny` preset's sizes, with dropout where nn.Transformer has it."""
    size = preset("tiny", name).model
    if isinstance(size, TransformerConfig):
        size = replace(size, attention_dropout=DROPOUT, activation_dropout=DROPOUT)
    return replace(size, dropout=DROPOUT)


def make_batches(options: Options) -> list[Batch]:
    """The batches of the workload."""
    if options.source is not None and options.target is not None:
        return text_batches(
            options.source,
            options.target,
            sentences=options.sentences,
            batches=options.batches,
            vocabulary=options.vocabulary,
        )
    lengths = options.source_length, options.target_length
    return [random_batch(Shape(options.sentences, *lengths, options.vocabulary))]


def training_run(
    model: nn.Module,
    adam: optax.GradientTransformation,
    state: TrainState,
    batches: Sequence[Batch],
) -> Run:
    """Training steps of `encdec`; they donate the state."""
    update = jax.jit(partial(train_step, model, adam, TRAINING), donate_argnums=0)
    batches, key = jax.device_put(([*batches], jax.random.key(1)))

    def run() -> TrainState:
        nonlocal state
        for batch in batches:
            state, _ = update(state, batch, key)
        return jax.block_until_ready(state)

    return run


def endless(params: Params) -> Params:
    """Parameters with which the end token is never likely."""
    logits = params["logits"]
    return params | {"logits": logits | {"bias": logits["bias"].at[END].set(NEVER)}}


def search(model: nn.Module, params: Params, batch: Batch, beams: int) -> SearchResult:
    """Searches a batch for translations of as many tokens as the targets have.

    Returns:
      NumPy arrays [B, ...]; one beam is greedy search.
    """
    limits = np.asarray(batch.tgt_mask).sum(1).astype(np.int32)
    options = SearchOptions(beam=beams, length_penalty=0.0)
    static, arrays = split(options, SpecialIds(), max_len=int(limits.max()))
    sentences: Any = Sentences(
        limits, np.arange(len(limits), dtype=np.uint32), np.zeros((len(limits), 0), np.int32)
    )
    rows = sharding.shard_rows((((batch.src, batch.src_mask),), sentences), SINGLE_DEVICE)
    return find(
        SINGLE_DEVICE,
        Model((model,), "probabilities"),
        static,
        (params,),
        Shared(arrays, np.ones(1, np.float32)),
        *rows,
        cache_grows=cache_bytes(model) > 0,
        gather=partial(sharding.gather_batch, layout=SINGLE_DEVICE),
    )


def each(work: Callable[[Any], Any], batches: Sequence[Any]) -> Run:
    """One piece of work after another."""
    return lambda: [work(batch) for batch in batches]


def torch_runs(config: ModelConfig, batches: Sequence[Batch], options: Options) -> dict[str, Run]:
    """The same tasks in PyTorch."""
    import torch

    from experiments import torch_loops, torch_peers

    torch_loops.prepare(options.precision)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    shapes = [shape_of(batch, options.vocabulary) for batch in batches]
    longest = max(max(shape.source, shape.target) for shape in shapes)
    trained, searched = (
        torch_peers.build(config, options.vocabulary, longest).to(device) for _ in range(2)
    )
    torch_loops.make_endless(searched, NEVER)
    pairs = [
        tuple(torch.from_numpy(np.asarray(x)).long().to(device) for x in (batch.src, batch.tgt))
        for batch in batches
    ]
    greedy = partial(torch_loops.greedy, searched)
    beam_search = partial(torch_loops.beam_search, searched, beams=BEAMS)
    sources = [(src, torch_peers.lengths(tgt[:, 1:])) for src, tgt in pairs]

    def finished(run: Run) -> Any:
        result = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    calls: dict[str, Run] = {
        "training": each(torch_loops.trainer(trained, TRAINING), pairs),
        "greedy": each(lambda one: greedy(*one), sources),
        f"beam {BEAMS}": each(lambda one: beam_search(*one), sources),
    }
    return {task: partial(finished, call) for task, call in calls.items()}


def encdec_runs(config: ModelConfig, batches: Sequence[Batch], options: Options) -> dict[str, Run]:
    """All tasks in `encdec`."""
    model = registry.build(
        config, options.vocabulary, options.vocabulary, precision=options.precision
    )
    adam = optimizer(TRAINING)
    state = init_state(registry.init(model, jax.random.key(0)), adam, TRAINING)
    params = endless(state.params)
    return {
        "training": training_run(model, adam, jax.tree.map(jnp.copy, state), batches),
        "greedy": each(partial(search, model, params, beams=1), batches),
        f"beam {BEAMS}": each(partial(search, model, params, beams=BEAMS), batches),
    }


def available_frameworks() -> dict[str, MakeRuns]:
    """`encdec`, and PyTorch if it can use the device that JAX uses."""
    frameworks: dict[str, MakeRuns] = {"encdec": encdec_runs}
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: only encdec is timed", file=sys.stderr)
        return frameworks
    import torch

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        print("PyTorch sees no GPU: only encdec is timed", file=sys.stderr)
        return frameworks
    return frameworks | {"PyTorch": torch_runs}


def in_turn(runs: dict[str, Run], rounds: int) -> dict[str, tuple[float, list[float]]]:
    """Times each framework: seconds of its first call, and of each later round."""
    firsts = {name: clock(run) for name, run in runs.items()}
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(clock(run))
    return {name: (firsts[name], times[name]) for name in runs}


def compare(
    name: str,
    batches: Sequence[Batch],
    options: Options,
    peak: float,
    frameworks: dict[str, MakeRuns],
) -> Iterator[Row]:
    """The rows of one model: training, greedy, beam; the frameworks in turn."""
    config = model_config(name)
    by_framework = {
        framework: make(config, batches, options) for framework, make in frameworks.items()
    }
    shapes = [shape_of(batch, options.vocabulary) for batch in batches]
    flops = 3 * sum(forward_flops(config, shape) for shape in shapes)
    tokens = sum(int(np.sum(batch.tgt_mask)) for batch in batches)
    for task in by_framework["encdec"]:
        forget_programs()  # each shape has its own: in the end more than a process can hold
        runs = {framework: of_task[task] for framework, of_task in by_framework.items()}
        for framework, (first, seconds) in in_turn(runs, options.rounds).items():
            median = statistics.median(seconds)
            is_training = task == "training"
            units = tokens if is_training else sum(shape.sentences for shape in shapes)
            fraction = flops / median / peak if is_training else None
            yield Row(name, task, framework, seconds, units / median, fraction, first)


HEAD = f"{'model':12}{'task':10}{'framework':10}{'unit/s':>9}{'ms':>9}{'peak':>6}{'first s':>9}"


def line(row: Row) -> str:
    """One line of the table; a unit is a target token (training) or a sentence (search)."""
    fraction = "" if row.peak_fraction is None else f"{row.peak_fraction:.0%}"
    return (
        f"{row.model:12}{row.task:10}{row.framework:10}{row.per_second:9.0f}"
        f"{1000 * statistics.median(row.seconds):9.1f}{fraction:>6}{row.first_call:9.1f}"
    )


def machine(peak: float) -> dict[str, Any]:
    """The device and the versions that the results are from."""
    names = ["jax", "flax", *(["torch"] if importlib.util.find_spec("torch") else [])]
    return {
        "device": jax.devices()[0].device_kind,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in names},
        "matmul_gflops": peak / 1e9,
    }


def main(options: Options) -> None:
    """Measures, prints the table, writes the file."""
    frameworks = available_frameworks()
    rows = []
    peak = matmul_peak(options.precision)
    about = machine(peak)
    print(*(f"{name}: {value}" for name, value in about.items()), HEAD, sep="\n", flush=True)
    batches = make_batches(options)
    for name in options.models:
        for row in compare(name, batches, options, peak, frameworks):
            print(line(row), flush=True)
            rows.append(row)
    if options.json:
        tree = about | {
            "options": dataclasses.asdict(options),
            "rows": [row._asdict() for row in rows],
        }
        options.json.write_text(json.dumps(tree, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with as_command("benchmark.py"):
        main(tyro.cli(Options, description=__doc__))
