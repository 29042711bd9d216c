"""One session of training: from a run's latest checkpoint, or its first step, to an end."""

import json
import os
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import jax

from encdec.config import TrainingDeviceConfig
from encdec.data.batches import largest_batches
from encdec.data.sources import Pairs
from encdec.files import write_text
from encdec.ops.seeds import key_from_words, seed_words
from encdec.parallel import processes, sharding
from encdec.parallel.devices import chosen_precision
from encdec.parallel.layout import Layout
from encdec.progress import Progress
from encdec.runs import checkpoints
from encdec.runs.checkpoints import Checkpoints
from encdec.runs.metrics_log import MetricsLog, Silent, describe_bad_lines
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.training import loop
from encdec.training.callbacks import Callback, log_rows, show_progress
from encdec.training.compiled_step import CompiledStep
from encdec.training.fine_tuning import roles_of_run
from encdec.training.initial import Initial
from encdec.training.interruption import Interrupted, Interruption
from encdec.training.loop import DivergedError, LoopEnd
from encdec.training.memory import check_memory, check_state
from encdec.training.optimizer import optimizer, schedule
from encdec.training.pipeline import Pipeline, Say, local_rows
from encdec.training.resume_point import ResumePoint
from encdec.training.saving import Saver
from encdec.training.sharded_state import StateSharding
from encdec.training.step import TrainState
from encdec.training.validation import loss_on_batches, translation_metrics
from encdec.types import InputError


class Start(NamedTuple):
    """The start of a session.

    Attributes:
      state: the train state on its devices.
      done: the updates that it has had.
      point: early stopping, and the sums of metrics since the last row.
      is_saved: whether the run can be resumed from it: without the initial parameters where there
        were some.
    """

    state: TrainState
    done: int
    point: ResumePoint
    is_saved: bool


def begin(
    run: Run, layout: Layout, devices: TrainingDeviceConfig, initial: Initial | None
) -> tuple[StateSharding, Start]:
    """Puts the state that a session begins with on its devices.

    This is apart from `train_session` so that the caller can let go of the initial parameters.

    Args:
      run: its latest checkpoint is the state, if it has one.
      layout, devices: the devices, and how they are used.
      initial: the initial parameters of a new run; None for random ones.

    Raises:
      InputError: the latest checkpoint cannot be used, or the state does not fit into memory.
    """
    precision = chosen_precision(devices.precision)
    state_sharding = StateSharding(
        build_model(run),
        build_model(run, layout, remat=devices.remat, precision=precision),
        optimizer(run.config.training),
        run.config.training,
        layout,
        roles_of_run(run),
    )
    processes.on_all_processes(lambda: check_state(state_sharding.shard_shapes))
    saved = checkpoints.steps(run.path, "latest")
    processes.check_same_step(saved[-1] if saved else 0)
    if saved:
        state, point = processes.on_all_processes(lambda: _read_latest(run, state_sharding))
        processes.check_equal({"latest checkpoint": checkpoints.digest(run.path, "latest")})
        return state_sharding, Start(state_sharding.shard(state), int(state.step), point, True)
    key = key_from_words(seed_words(run.config.seed))
    if initial is None:
        return state_sharding, Start(state_sharding.init(key), 0, ResumePoint(), True)
    first = state_sharding.start(initial.params, key)
    return state_sharding, Start(first, 0, ResumePoint(), False)


def _read_latest(run: Run, state_sharding: StateSharding) -> tuple[TrainState, ResumePoint]:
    """The latest state, and what was saved with it."""
    state, note = checkpoints.load(run.path, "latest", state_sharding.shapes)
    step = checkpoints.steps(run.path, "latest")[-1]
    where = f"checkpoint {run.path / 'checkpoints' / 'latest' / str(step)}"
    if int(state.step) != step:
        raise InputError(f"{where} is damaged: it holds the state of step {state.step}")
    return state, ResumePoint.from_note(note, where)


def compile_largest(
    pipeline: Pipeline, state_sharding: StateSharding, start: Start, say: Say
) -> CompiledStep:
    """The step of training, compiled for the batches that may need the most memory.

    Nothing is compiled for a run that has ended, or whose batches have shapes that are not known.

    Raises:
      InputError: they do not fit into memory.
    """
    run, layout, bucketing = pipeline.run, state_sharding.layout, pipeline.bucketing
    shapes = bucketing and len(bucketing.buckets)
    step = CompiledStep(state_sharding, shapes, lambda line, _: say(line))
    if bucketing is None or _has_ended(run, start):
        return step
    say(
        f"batches have {shapes} shape{'s' if shapes != 1 else ''}: before its first batch, the "
        "step is compiled for each of them"
    )
    key = key_from_words(seed_words(run.config.seed))
    largest = largest_batches(bucketing, local_rows(run.config, layout))
    each = [step.compile(start.state, one, key, measure=True) for one in largest]
    needed = None if None in each else max(n for n in each if n is not None)
    fixed = sharding.bytes_per_device(start.state, layout)
    fits = partial(check_memory, bucketing, run.config.data.batch_tokens, layout)
    processes.on_all_processes(lambda: fits(needed, fixed))
    return step


def _has_ended(run: Run, start: Start) -> bool:
    """Whether no step is left to train, or early stopping has ended the run."""
    training = run.config.training
    return start.done >= training.max_steps or start.point.stopping.is_over(training.patience)


def train_session(
    pipeline: Pipeline,
    step: CompiledStep,
    state_sharding: StateSharding,
    start: Start,
    callbacks: Sequence[Callback],
    say: Say,
    save_minutes: float,
) -> tuple[int, int]:
    """Trains a run up to `max_steps` or an earlier end.

    Args:
      pipeline: the run and its batches.
      step: from `compile_largest`.
      state_sharding, start: from `begin`.
      callbacks: see `encdec.training.callbacks`.
      say: is called with lines about the start and the end of training.
      save_minutes: the time between two checkpoints, if no validation comes before.

    Returns:
      The number of updates of the run before this session, and after it.

    Raises:
      InputError: a loss is not finite, or a file cannot be written.
      Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    run, training = pipeline.run, pipeline.run.config.training
    with Checkpoints(run.path, training.average_last, processes.barrier) as saved:
        saved.drop_after(start.done)
        saver = Saver(state_sharding, saved, training)
        if not start.is_saved:
            saver.save_latest(start.state, 0, start.point)
        start = _without_lost(run, start, saver, say)
        stopping = start.point.stopping
        if start.done >= training.max_steps:
            say(f"{run.path} has its {start.done} steps already")
            return start.done, start.done
        if stopping.is_over(training.patience):
            waited = f"{stopping.waited} validations without a better"
            say(f"{run.path} stopped at step {start.done}: {waited}")
            return start.done, start.done
        if note := describe_bad_lines(run.path / "metrics.jsonl"):
            say(note)
        say(f"{run.path}: from step {start.done} of {training.max_steps}")
        interruption = Interruption(save_minutes)
        end = _run_loop(pipeline, step, state_sharding, start, saver, interruption, callbacks)
    if end.signal:
        raise Interrupted(
            f"{end.signal.name} at step {end.step} of {training.max_steps}: the state is saved, "
            f"and the same command resumes {run.path} from there",
            end.signal,
        )
    late = interruption.received
    if processes.any_process(late is not None)[0]:
        raise Interrupted(f"{run.path} has ended at step {end.step}", late or signal.SIGTERM)
    if end.reason != "max_steps":
        say(f"stopped at step {end.step}: {_reason(end, training.patience)}")
    return start.done, end.step


def _without_lost(run: Run, start: Start, saver: Saver, say: Say) -> Start:
    """The start of a run whose checkpoints to translate with, or to average, may have been removed.

    Raises:
      InputError: the best one was removed, and no validation follows that could replace it.
    """
    training, stopping = run.config.training, start.point.stopping
    saver.save_missing_best(start.state, start.done, stopping)
    # The next mean is that of the next checkpoint and of these.
    needed = min(stopping.validations, training.average_last - 1)
    if len(checkpoints.steps(run.path, "recent")) < needed:
        say(f"{run.path} has lost checkpoints/recent: the next averages are of fewer checkpoints")
    if stopping.best is None or saver.checkpoints.has("best", stopping.step):
        return start
    lost = f"{run.path} has lost its best parameters, checkpoints/best/{stopping.step}"
    if start.done >= training.max_steps or stopping.is_over(training.patience):
        raise InputError(f"{lost}: copy them again from the original run folder")
    say(f"{lost}: those of the next validation take their place")
    point = start.point._replace(stopping=stopping._replace(best=None))
    return start._replace(point=point)


def _run_loop(
    pipeline: Pipeline,
    step: CompiledStep,
    state_sharding: StateSharding,
    start: Start,
    saver: Saver,
    interruption: Interruption,
    callbacks: Sequence[Callback],
) -> LoopEnd:
    """Runs the loop with log, progress bar and validation."""
    run, layout = pipeline.run, state_sharding.layout
    config, key = run.config.training, key_from_words(seed_words(run.config.seed))
    with _log(run, start.done) as log, _progress(config.max_steps, start.done) as bar:
        log.write({"kind": "start", "step": start.done, **_environment(layout)})

        def announce(line: str, seconds: float) -> None:
            bar.say(line)
            bar.discount(seconds)

        step = step.announced_by(announce)
        try:
            with interruption:
                return loop.train(
                    step,
                    start.state,
                    start.done,
                    pipeline.batches(start.done),
                    key,
                    config,
                    schedule(config),
                    evaluate=_evaluate(pipeline, state_sharding, start.state),
                    saver=saver,
                    start=start.point,
                    interruption=interruption,
                    callbacks=(log_rows(log), show_progress(bar), *callbacks),
                )
        except DivergedError as error:
            raise _diverged(run, error) from error


def _evaluate(
    pipeline: Pipeline, state_sharding: StateSharding, state: TrainState
) -> loop.Evaluate | None:
    """The validation, which fits beside the state; None if there is no validation data."""
    run, valid, precision = pipeline.run, pipeline.valid, state_sharding.precision
    layout = state_sharding.layout
    if isinstance(valid, Pairs):
        reserved = sharding.bytes_per_device(state, layout)
        return translation_metrics(run, valid, layout, precision, reserved=reserved)
    return loss_on_batches(run, valid, layout, precision) if valid else None


def _log(run: Run, done: int) -> AbstractContextManager[MetricsLog | Silent]:
    return (
        MetricsLog(run.path, resume_step=done)
        if processes.is_main_process()
        else nullcontext(Silent())
    )


def _progress(steps: int, done: int) -> AbstractContextManager[Progress | Silent]:
    return Progress(steps, done) if processes.is_main_process() else nullcontext(Silent())


def _environment(layout: Layout) -> dict[str, str]:
    """The devices, versions and time in the first row of a session."""
    kind = jax.devices()[0].device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": f"{layout.size} x {kind}, {cores} CPU cores",
        "layout": str(layout),
        "jax": jax.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _reason(end: LoopEnd, patience: int) -> str:
    """Why training ended before its last step."""
    if end.reason == "patience":
        return f"{patience} validations without a better"
    return "a callback asked for it" if end.reason == "callback" else "there are no more batches"


def _diverged(run: Run, error: DivergedError) -> InputError:
    """The error for a loss that is not finite; writes the batch to the run folder as text."""
    path = run.path / "diverged.jsonl"
    rows = zip(*(jax.device_get((error.batch.src, error.batch.tgt))), strict=True)
    texts = [(run.src_vocabulary.decode(s), run.tgt_vocabulary.decode(t)) for s, t in rows]
    lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in texts if any(pair)]
    if processes.is_main_process():
        write_text(path, "".join(lines))
    good = checkpoints.steps(run.path, "latest")
    kept = f"the checkpoint of step {good[-1]} is kept" if good else "no checkpoint was saved"
    return InputError(
        f"step {error.step}: {error}; {kept}, the batch's {len(lines)} sentences are in {path}: "
        "look at them, or train a new run with a lower learning_rate, a longer warmup or a "
        "clip_norm"
    )
