"""Trains a run from its settings: corpus, vocabularies, folder, loop, last scores."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from encdec import config as configs
from encdec.config import RunConfig, TrainingDeviceConfig, TransformerConfig
from encdec.data.batches import Rows, SubwordSampling, largest_batch, training_iterator
from encdec.data.bucketing import Bucketing
from encdec.data.corpus import Corpus, read_corpus
from encdec.data.pipeline import (
    bucket_training,
    build_vocabularies,
    encode_training,
    note_long_sources,
    subword_sampling,
)
from encdec.data.sources import Pairs
from encdec.data.tokens import Examples
from encdec.evaluation import metrics
from encdec.inference.translator import Translator
from encdec.parallel import processes, sharding
from encdec.parallel.devices import compute_dtype
from encdec.parallel.layout import Layout
from encdec.progress import Progress
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.checkpoints import Checkpoints
from encdec.runs.metrics_log import MetricsLog, Silent
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.search.options import SearchOptions
from encdec.training import loop
from encdec.training.loop import DivergedError, EarlyStopping
from encdec.training.memory import check_memory, check_rows
from encdec.training.optimizer import optimizer, schedule
from encdec.training.sharded_state import StateSharding
from encdec.training.step import TrainState
from encdec.types import InputError, Params

Say = Callable[[str], None]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


@dataclass(frozen=True)
class TrainResult:
    """A trained run. `trained_steps` are those of this call, 0 if all were done before."""

    run: Run
    trained_steps: int


def train_run(
    config: RunConfig,
    folder: Path,
    say: Say = _to_stderr,
    devices: TrainingDeviceConfig | None = None,
) -> TrainResult:
    """Trains a run in a folder, from its latest checkpoint if it has one.

    Args:
      config: settings; those of an existing run in the folder must be the same.
      folder: is created; an existing one must hold this very run, or nothing.
      say: told what happens, a line at a time.
      devices: where to compute; all devices on data if left out.

    Raises:
      InputError: bad input, before anything is written.
    """
    devices = devices or TrainingDeviceConfig()
    processes.start(devices)
    try:
        return _train_run(config, folder, say if processes.is_main_process() else _nowhere, devices)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise InputError(
            f"another process has ended or cannot be reached ({str(error).splitlines()[0]}): see "
            "its own message; the same command on all goes on from the latest checkpoint"
        ) from error


def _nowhere(_: str) -> None:
    """What another process says already."""


def _train_run(
    config: RunConfig, folder: Path, say: Say, devices: TrainingDeviceConfig
) -> TrainResult:
    notes: list[str] = []  # told once nothing can be refused any more
    layout = processes.on_all_processes(lambda: _layout(config, devices))
    corpus = processes.on_all_processes(lambda: read_corpus(config, notes.append))
    processes.check_equal(
        {
            "version of encdec or JAX": f"{version('encdec')} {jax.__version__}",
            "configuration": json.dumps(configs.to_json(config)),
            "layout, precision or use of memory": str(_shared(devices)),
            "run folder": folder.name,
            "corpus": corpus.digest,
        }
    )
    prepared = processes.main_process_first(
        lambda: _prepare(config, folder, corpus, layout, notes.append, say)
    )
    run = prepared.run
    for note in notes:
        say(note)
    with Checkpoints(run.path, config.training.average_last, processes.barrier) as saved:
        state_sharding = _state_sharding(run, layout, devices)
        state, done, standing = _first_state(run, state_sharding)
        saved.drop_after(done)
        loop.save_missing_best(state_sharding, state, done, run.config.training, saved, standing)
        if done >= config.training.max_steps:
            say(f"{folder} has its {done} steps already")
            return TrainResult(run, 0)
        if standing.is_over(config.training.patience):
            say(f"{folder} stopped at step {done}: {standing.waited} validations without a better")
            return TrainResult(run, 0)
        say(f"{folder}: from step {done} of {config.training.max_steps}")
        last = _train(prepared, state_sharding, state, done, standing, saved)
    if last < config.training.max_steps:
        say(f"stopped at step {last}: {config.training.patience} validations without a better")
    return TrainResult(run, last - done)


def _layout(config: RunConfig, devices: TrainingDeviceConfig) -> Layout:
    """The layout that was asked for, if this model can be trained so."""
    layout = Layout.parse(devices.layout, shard_optimizer=devices.shard_optimizer)
    layout.check_model(config.model)
    if devices.remat and not isinstance(config.model, TransformerConfig):
        raise InputError("remat is for a transformer's layers: leave it out")
    return layout


def _shared(devices: TrainingDeviceConfig) -> TrainingDeviceConfig:
    """What all processes must have chosen alike."""
    return replace(devices, coordinator=None, processes=None, process=None)


class _Prepared(NamedTuple):
    """All that the loop needs but parameters."""

    run: Run
    examples: Examples
    bucketing: Bucketing
    sampling: SubwordSampling | None
    valid: Pairs


def _prepare(
    config: RunConfig, folder: Path, corpus: Corpus, layout: Layout, note: Say, say: Say
) -> _Prepared:
    """The folder's run, or a new one. Whatever can be refused is, before the folder is made.

    What is noted can wait; what is said cannot: that another process is waited for.
    """
    data, train = config.data, corpus.train
    run = _existing(folder, config, corpus.digest)
    if run is None and not processes.is_main_process():
        raise InputError(
            f"process {jax.process_index()} does not see {folder.absolute()}, which process 0 has "
            "made: name a folder by --run that all processes share"
        )
    source, target = (
        (run.src_vocabulary, run.tgt_vocabulary)
        if run
        else build_vocabularies(data, train, config.seed)
    )
    examples = encode_training(data, train, corpus.digest, (source, target), say)
    sampling = subword_sampling(data, (source, target))
    batches, extra = bucket_training(config, examples, sampling, note)
    note_long_sources(config, corpus.valid.src, source, note)
    check_rows(batches, data.batch_tokens, layout)
    if run is None:
        run = Run(folder, config, corpus.digest, extra, source, target, corpus.held_out)
        runs.create(run)
    elif run.config != config:
        run = runs.set_max_steps(run, config.training.max_steps)
    return _Prepared(run, examples, batches, sampling, corpus.valid)


def _existing(folder: Path, config: RunConfig, mark: str) -> Run | None:
    """The run in the folder, if it is this one; None where there is nothing yet."""
    if runs.is_run(folder):
        run = runs.load(folder)
        runs.check_same(run, config, mark)
        return run
    if not runs.is_vacant(folder):
        raise InputError(f"{folder} is there and holds no run: name another folder by --run")
    return None


def _state_sharding(run: Run, layout: Layout, devices: TrainingDeviceConfig) -> StateSharding:
    return StateSharding(
        build_model(run),
        build_model(run, layout, remat=devices.remat),
        optimizer(run.config.training),
        run.config.training,
        layout,
        compute_dtype(devices.precision),
    )


def _first_state(run: Run, state_sharding: StateSharding) -> tuple[TrainState, int, EarlyStopping]:
    """The latest checkpoint, its step and how validation stood; or a fresh beginning."""
    if not checkpoints.steps(run.path, "latest"):
        return state_sharding.init(jax.random.key(run.config.seed)), 0, EarlyStopping()
    state, note = checkpoints.load(run.path, "latest", state_sharding.shapes)
    return state_sharding.shard(state), int(state.step), EarlyStopping(**note)


def _train(
    prepared: _Prepared,
    state_sharding: StateSharding,
    state: TrainState,
    done: int,
    standing: EarlyStopping,
    saved: Checkpoints,
) -> int:
    """Runs the loop; returns the step it ended at."""
    run, config, layout = prepared.run, prepared.run.config.training, state_sharding.layout
    sample = Pairs(*(side[: config.evaluate_sentences] for side in prepared.valid))
    names = metrics.NAMES if config.best_metric == "ter" else metrics.QUICK

    def evaluate(params: Params) -> dict[str, float]:
        translator = Translator(run, params, None, layout, state_sharding.dtype)
        found = translator.evaluate(sample, SearchOptions(beam=1), names=names)
        scores = found.summary().items()
        return {name: value for name, value in scores if isinstance(value, int | float)}

    with _log(run, done) as log, _progress(config.max_steps, done) as bar:
        log.write({"kind": "start", "step": done, **_surroundings(layout)})
        step = loop.CompiledStep(state_sharding, len(prepared.bucketing.buckets), bar.say)
        key = jax.random.key(run.config.seed)
        rows = Rows(
            layout.data * config.gradient_accumulation, jax.process_index(), jax.process_count()
        )
        needed = step.compile(state, largest_batch(prepared.bucketing, rows), key, measure=True)
        fits = partial(check_memory, prepared.bucketing, run.config.data.batch_tokens, layout)
        processes.on_all_processes(lambda: fits(needed, sharding.bytes_per_device(state, layout)))
        batches = training_iterator(
            prepared.examples,
            prepared.bucketing,
            run.config.seed,
            done,
            prepared.sampling,
            rows,
        )
        return _until_divergence(
            run,
            step,
            state,
            done,
            batches,
            key,
            config,
            schedule(config),
            evaluate=evaluate,
            checkpoints=saved,
            standing=standing,
            log=log,
            bar=bar,
        )


def _log(run: Run, done: int) -> AbstractContextManager[MetricsLog | Silent]:
    return (
        MetricsLog(run.path, resume_step=done)
        if processes.is_main_process()
        else nullcontext(Silent())
    )


def _progress(steps: int, done: int) -> AbstractContextManager[Progress | Silent]:
    return Progress(steps, done) if processes.is_main_process() else nullcontext(Silent())


def _surroundings(layout: Layout) -> dict[str, str]:
    """What a row of metrics says of the place and time of a run."""
    kind = jax.devices()[0].device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": f"{layout.size} x {kind}, {cores} CPU cores",
        "layout": str(layout),
        "jax": jax.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _until_divergence(run: Run, *arguments: Any, **how: Any) -> int:
    """`loop.train`; a loss that is not finite ends as an InputError, with its batch on disk."""
    try:
        return loop.train(*arguments, **how)
    except DivergedError as error:
        path = run.path / "diverged.jsonl"
        sides = error.batch.src, error.batch.tgt
        rows = zip(*map(jax.device_get, sides), strict=True)
        texts = [(run.src_vocabulary.decode(s), run.tgt_vocabulary.decode(t)) for s, t in rows]
        lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in texts if any(pair)]
        if processes.is_main_process():
            path.write_text("".join(lines), encoding="utf-8")
        good = checkpoints.steps(run.path, "latest")
        kept = f"the checkpoint of step {good[-1]} is kept" if good else "no checkpoint was saved"
        raise InputError(
            f"step {error.step}: {error}; {kept}, the batch's {len(lines)} sentences are in "
            f"{path}: look at them, or train anew with a lower learning_rate, a longer warmup or "
            "a clip"
        ) from error
