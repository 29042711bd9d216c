"""Trains a run from its settings: corpus, vocabularies, folder, loop, last scores."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec import run as runs
from encdec.config import RunConfig
from encdec.data.batching import SubwordSampling, deliver
from encdec.data.dates import dates
from encdec.data.plan import Plan
from encdec.data.sources import Listed, Pairs, digest, hold_out, read_pairs, without_blanks
from encdec.data.tokens import Examples
from encdec.preparing import build_vocabularies, encode_training, plan_training
from encdec.report.logs import MetricsLog, Progress
from encdec.run import Run
from encdec.training import checkpoints, loop
from encdec.training.checkpoints import Checkpoints
from encdec.training.optimizer import optimizer, schedule
from encdec.training.step import TrainState, init_state, train_step
from encdec.translator import SearchOptions, Translator, build_model
from encdec.types import InputError, Params

Say = Callable[[str], None]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


class Corpus(NamedTuple):
    """Sentences to train on, to validate on, and to be scored on."""

    train: Pairs
    valid: Pairs
    held_out: Pairs


@dataclass(frozen=True)
class Fitted:
    """A trained run. `trained_steps` are those of this call, 0 if all were done before."""

    run: Run
    trained_steps: int


def read_corpus(config: RunConfig, say: Say) -> Corpus:
    """The corpus that the settings name. Files without validation files have a part held out.

    Raises:
      InputError: see `encdec.data.sources`.
    """
    data = config.data
    if not data.has_files:
        made = dates(data.date_sentences, config.seed)
        return Corpus(made.train, made.valid, made.test)
    pairs, blank = without_blanks(read_pairs(data.source, data.target, data.tsv, data.tsv_columns))
    if blank:
        say(f"{blank} pairs with an empty side are left out of training")
    if data.has_validation_files:
        valid = read_pairs(data.valid_source, data.valid_target, data.valid_tsv, data.tsv_columns)
        return Corpus(pairs, valid, valid)
    train, valid = hold_out(pairs, data.held_out, config.seed)
    say(f"{len(valid.src)} of {len(pairs.src)} pairs are held out to validate on")
    return Corpus(train, valid, valid)


def fit(config: RunConfig, folder: Path, say: Say = _to_stderr) -> Fitted:
    """Trains a run in a folder, from its latest checkpoint if it has one.

    Args:
      config: settings; those of an existing run in the folder must be the same.
      folder: is created; an existing one must hold this very run, or nothing.
      say: told what happens, a line at a time.

    Raises:
      InputError: bad input, before anything is written.
    """
    notes: list[str] = []  # told once nothing can be refused any more
    corpus = read_corpus(config, notes.append)
    prepared = _prepare(config, folder, corpus, notes.append)
    run = prepared.run
    for note in notes:
        say(note)
    with Checkpoints(run.path) as saved:
        state, best = _first_state(run)
        done = int(state.step)
        if done >= config.training.max_steps:
            say(f"{folder} has its {done} steps already")
            return Fitted(run, 0)
        say(f"{folder}: from step {done} of {config.training.max_steps}")
        saved.drop_after(done)
        _train(prepared, state, best, saved, say)
    return Fitted(run, config.training.max_steps - done)


class _Prepared(NamedTuple):
    """All that the loop needs but parameters."""

    run: Run
    examples: Examples
    plan: Plan
    valid: Pairs


def _prepare(config: RunConfig, folder: Path, corpus: Corpus, say: Say) -> _Prepared:
    """The folder's run, or a new one. Whatever can be refused is, before the folder is made."""
    data, train = config.data, Listed(corpus.train)
    content = digest(corpus.train)
    mark = content + digest(corpus.valid)
    run = _existing(folder, config, mark)
    source, target = (
        (run.src_vocabulary, run.tgt_vocabulary)
        if run
        else build_vocabularies(data, train, config.seed)
    )
    examples = encode_training(data, train, content, (source, target), say)
    batches, extra = plan_training(config, examples, say)
    if run is None:
        run = Run(folder, config, mark, extra, source, target, corpus.held_out)
        runs.create(run)
    elif run.config != config:
        run = runs.set_max_steps(run, config.training.max_steps)
    return _Prepared(run, examples, batches, corpus.valid)


def _existing(folder: Path, config: RunConfig, mark: str) -> Run | None:
    """The run in the folder, if it is this one; None where there is nothing yet."""
    if runs.is_run(folder):
        run = runs.load(folder)
        runs.check_same(run, config, mark)
        return run
    if not runs.is_vacant(folder):
        raise InputError(f"{folder} is there and holds no run: name another folder by --run")
    return None


def _subword_sampling(run: Run) -> SubwordSampling | None:
    alpha = run.config.data.subword_sampling
    return SubwordSampling(run.src_vocabulary, run.tgt_vocabulary, alpha) if alpha else None


def _first_state(run: Run) -> tuple[TrainState, float | None]:
    """Where training begins: the latest checkpoint with its best score so far, or afresh."""
    make = partial(init_state, build_model(run), optimizer(run.config.training))
    key = jax.random.key(run.config.seed)
    if not checkpoints.steps(run.path, "latest"):
        return make(key), None
    tree, note = checkpoints.load(run.path, "latest", jax.eval_shape(make, key))
    return jax.tree.map(jnp.asarray, tree), note["best"]


def _train(
    prepared: _Prepared, state: TrainState, best: float | None, saved: Checkpoints, say: Say
) -> None:
    run, config, done = prepared.run, prepared.run.config.training, int(state.step)
    sample = Pairs(*(side[: config.evaluate_sentences] for side in prepared.valid))

    def evaluate(params: Params) -> dict[str, float]:
        found = Translator(run, params).evaluate(sample, SearchOptions(beam=1)).summary()
        return {name: value for name, value in found.items() if isinstance(value, int | float)}

    step = partial(
        train_step,
        build_model(run),
        optimizer(config),
        config.label_smoothing,
        config.accumulate,
    )
    with MetricsLog(run.path, resume_step=done) as log, Progress(config.max_steps, done) as bar:
        loop.train(
            loop.CompiledStep(step, len(prepared.plan.buckets), bar.say),
            state,
            deliver(
                prepared.examples, prepared.plan, run.config.seed, done, _subword_sampling(run)
            ),
            jax.random.key(run.config.seed),
            config,
            schedule(config),
            evaluate=evaluate,
            checkpoints=saved,
            best=best,
            log=log,
            bar=bar,
        )
