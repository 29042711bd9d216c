"""How fast are training and search, compared with the same workload in plain PyTorch?

    pip install "encdec[peers]"   # PyTorch; without it only encdec is timed
    python experiments/benchmark.py --json benchmark.json

Workload: float32, vocabulary 8,000, 128 sentences of 32 source and 32 target tokens. Models: the
`tiny` preset's, with dropout 0.1 everywhere that nn.Transformer has it. Training: label smoothing
0.1, clipping at 1.0, Adam, inverse square root after a warm-up. Search: random parameters, with
probability 0 for the end token, so that every sentence runs to its limit in both frameworks. The
docstring of `torch_peers.py` lists the differences of the PyTorch models.

After two calls each, the frameworks run in turn; figures are medians. The "first call" includes
compilation. Model FLOPs are computed from matrix shapes, as 3 times the forward pass (one product
per matrix forwards, two backwards); their rate is given as a fraction of that of the fastest
float32 matrix product of JAX in the same run. The machine must be idle: another busy process makes
both frameworks several times slower. On a GPU set XLA_PYTHON_CLIENT_PREALLOCATE=false, so that both
frameworks find memory.

Device: 2 cores of an AMD EPYC with AVX-512, 2026-11-25, jax 0.10.2, torch 2.13.0.
Duration: 5 minutes, most of it beam search in PyTorch.
Results, the speed of encdec divided by that of PyTorch: training 2.23 (seq2seq), 1.78 (attention)
and 2.07 (transformer); greedy 0.95, 1.29 and 4.0; beam 1.39, 1.70 and 5.2. Training ran at 48, 30
and 32 % of the matmul peak of 491 GFLOP/s. On 2026-11-24, on a machine without AVX-512: training
1.87, 1.40 and 1.67; greedy 0.98, 1.10 and 3.6; beam 1.07, 1.12 and 4.2. Page faults are part of the
times: with huge pages for malloc (GLIBC_TUNABLES=glibc.malloc.hugetlb=1) the Transformer's step
took 490 ms there instead of 600.
"""

import dataclasses
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
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

from encdec.cli.main import one_line_errors
from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.config.presets import preset
from encdec.models import registry
from encdec.ops.products import matmul
from encdec.search.beam import beam_search
from encdec.search.sampling import greedy
from encdec.search.types import SearchResult
from encdec.training.optimizer import optimizer
from encdec.training.step import TrainState, init_state, train_step
from encdec.types import (
    Array,
    Batch,
    Cache,
    DecodeStep,
    InputError,
    Memory,
    Params,
    Precision,
    SpecialIds,
)

_, START, END, UNKNOWN = SpecialIds()

DROPOUT = 0.1
BEAMS = 5
TRAINING = TrainingConfig()  # label smoothing 0.1, clip 1.0, inverse-sqrt

Run = Callable[[], Any]
"""One training step or one search; it returns when the device has finished."""


@dataclass(frozen=True)
class Options:
    """The workload."""

    models: tuple[Literal["seq2seq", "attention", "transformer"], ...] = (
        "seq2seq",
        "attention",
        "transformer",
    )
    """Model families."""
    sentences: int = 128
    """Sentences per batch."""
    source_length: int = 32
    """Source tokens per sentence."""
    target_length: int = 32
    """Target tokens per sentence."""
    vocabulary: int = 8000
    """Tokens in each vocabulary."""
    rounds: int = 10
    """Timed runs of each framework."""
    precision: Literal["float32", "tf32"] = "float32"
    """Float32 matrix products: full precision, or TensorFloat-32 on a GPU."""
    json: Path | None = None
    """JSON file for the results, with the time of every run."""

    def __post_init__(self) -> None:
        least = {"sentences": 1, "source_length": 1, "target_length": 1, "rounds": 1}
        for name, minimum in (least | {"vocabulary": BEAMS + UNKNOWN}).items():
            if getattr(self, name) < minimum:
                raise InputError(
                    f"{name} = {getattr(self, name)} cannot be used: give at least {minimum}"
                )


MakeRuns = Callable[[ModelConfig, Batch, Options], dict[str, Run]]
"""Makes the runs of one framework, by task."""


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


def random_batch(options: Options) -> Batch:
    """Random sentences of equal length: src [B, S] and tgt [B, T + 1], with the end token."""
    random = np.random.default_rng(0)
    src, tgt = (
        random.integers(UNKNOWN + 1, options.vocabulary, (options.sentences, length), np.int32)
        for length in (options.source_length, options.target_length + 1)
    )
    src[:, -1] = tgt[:, -1] = END
    tgt[:, 0] = START
    return Batch(src, np.ones(src.shape, bool), tgt, np.ones(tgt[:, 1:].shape, bool))


def forward_flops(config: ModelConfig, options: Options) -> int:
    """FLOPs of a forward pass: 2 n m for each product of a row with a matrix [n, m]."""
    S, T, V = options.source_length, options.target_length, options.vocabulary
    if isinstance(config, TransformerConfig):
        D, F = config.width, config.feed_forward
        encoder = S * (4 * D * D + 2 * S * D + 2 * D * F)
        cross = T * (2 * D * D + 2 * S * D) + S * 2 * D * D
        decoder = T * (4 * D * D + 2 * T * D + 2 * D * F) + cross
        products = config.layers * (encoder + decoder) + T * D * V
    elif isinstance(config, Seq2SeqConfig):
        E, H = config.embed, config.hidden
        products = (S + T) * (E + H) * 3 * H + T * H * V
    else:
        products = _attention_products(config, S, T, V)
    return 2 * options.sentences * products


def _attention_products(config: AttentionConfig, S: int, T: int, V: int) -> int:
    E, H = config.embed, config.hidden
    encoder = 2 * S * (E + H) * 3 * H
    bridge_and_keys = (1 + S) * 2 * H * H
    attention = H * H + S * H + S * 2 * H  # query, scores, weighted sum
    cell = (E + 2 * H + H) * 3 * H
    readout = (H + E + 2 * H) * E + E * V
    return encoder + bridge_and_keys + T * (attention + cell + readout)


def training_run(
    model: nn.Module, adam: optax.GradientTransformation, state: TrainState, batch: Batch
) -> Run:
    """A training step of `encdec`; it donates the state."""
    update = jax.jit(partial(train_step, model, adam, TRAINING), donate_argnums=0)
    batch, key = jax.device_put((batch, jax.random.key(1)))

    def run() -> TrainState:
        nonlocal state
        state, _ = update(state, batch, key)
        return jax.block_until_ready(state)

    return run


def endless(step: DecodeStep) -> DecodeStep:
    """The step with an end token of probability 0."""

    def without_end(memory: Memory, cache: Cache, tokens: Array) -> tuple[Array, Array, Cache]:
        logits, attention, cache = step(memory, cache, tokens)
        return logits.at[..., END].set(-jnp.inf), attention, cache

    return without_end


@partial(jax.jit, static_argnames=("model", "beams", "max_len"))
def search(
    model: nn.Module, params: Params, src: Array, *, beams: int, max_len: int
) -> SearchResult:
    """Searches translations of exactly max_len tokens; one beam is greedy search."""
    bound = partial(model.apply, {"params": params})
    memory = bound(src, jnp.ones(src.shape, bool), method="encode")
    init_cache: Any = partial(bound, memory, beams, method="init_beam_cache")
    one_token: Any = partial(bound, method="decode_step")
    step = endless(one_token)
    max_lengths = jnp.full(len(src), max_len)
    common: dict[str, Any] = {
        "max_len": max_len,
        "specials": SpecialIds(),
        "banned": SpecialIds()[:2],
    }
    if beams == 1:
        return greedy(step, memory, init_cache, max_lengths, **common)
    return beam_search(step, memory, init_cache, max_lengths, beams=beams, **common)


def search_run(model: nn.Module, params: Params, batch: Batch, beams: int) -> Run:
    """A search of `encdec`."""
    src, max_len = jax.device_put(batch.src), batch.tgt.shape[1] - 1
    return lambda: jax.block_until_ready(search(model, params, src, beams=beams, max_len=max_len))


def torch_runs(config: ModelConfig, batch: Batch, options: Options) -> dict[str, Run]:
    """The same tasks in PyTorch."""
    import torch
    import torch_peers

    torch_peers.prepare(options.precision)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    length = max(options.source_length, options.target_length)
    model = torch_peers.build(config, options.vocabulary, length).to(device)
    src, tgt = (torch.from_numpy(x).long().to(device) for x in (batch.src, batch.tgt))
    max_len = options.target_length

    def finished(call: Run) -> Any:
        result = call()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    calls: dict[str, Run] = {
        "training": torch_peers.trainer(model, TRAINING, src, tgt),
        "greedy": partial(torch_peers.greedy, model, src, max_len),
        f"beam {BEAMS}": partial(torch_peers.beam_search, model, src, max_len, BEAMS),
    }
    return {task: partial(finished, call) for task, call in calls.items()}


def encdec_runs(config: ModelConfig, batch: Batch, options: Options) -> dict[str, Run]:
    """All tasks in `encdec`."""
    model = registry.build(
        config, options.vocabulary, options.vocabulary, precision=options.precision
    )
    adam = optimizer(TRAINING)
    state = init_state(registry.init(model, jax.random.key(0)), adam, TRAINING)
    return {
        "training": training_run(model, adam, jax.tree.map(jnp.copy, state), batch),
        "greedy": search_run(model, state.params, batch, 1),
        f"beam {BEAMS}": search_run(model, state.params, batch, BEAMS),
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


def clock(run: Run) -> float:
    """The duration of one call in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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


def product_run(size: int, precision: Precision) -> Run:
    """A square matrix product."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    multiply = jax.jit(partial(matmul, precision=precision))
    return lambda: jax.block_until_ready(multiply(x, x))


def matmul_peak(precision: Precision) -> float:
    """FLOP/s of the fastest square float32 product, of sizes doubled until one takes 50 ms."""
    best, size, seconds = 0.0, 256, 0.0
    while seconds < 0.05 and size < 8192:
        size *= 2
        run = product_run(size, precision)
        run()
        seconds = statistics.median(clock(run) for _ in range(10))
        best = max(best, 2 * size**3 / seconds)
    return best


def compare(
    name: str, config: ModelConfig, options: Options, peak: float, frameworks: dict[str, MakeRuns]
) -> Iterator[Row]:
    """The rows of one model: training, greedy, beam; the frameworks in turn."""
    batch = random_batch(options)
    by_framework = {
        framework: make(config, batch, options) for framework, make in frameworks.items()
    }
    flops = 3 * forward_flops(config, options)
    for task in by_framework["encdec"]:
        runs = {framework: of_task[task] for framework, of_task in by_framework.items()}
        for framework, (first, seconds) in in_turn(runs, options.rounds).items():
            median = statistics.median(seconds)
            is_training = task == "training"
            units = options.sentences * (options.target_length if is_training else 1)
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
    for name in options.models:
        for row in compare(name, model_config(name), options, peak, frameworks):
            print(line(row), flush=True)
            rows.append(row)
    if options.json:
        tree = about | {
            "options": dataclasses.asdict(options),
            "rows": [row._asdict() for row in rows],
        }
        options.json.write_text(json.dumps(tree, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with one_line_errors("benchmark.py"):
        main(tyro.cli(Options, description=__doc__))
