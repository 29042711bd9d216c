"""One session of training: from a run's latest checkpoint, or its first step, to an end."""

import json
import os
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

import jax
import numpy as np

from encdec.files import write_text
from encdec.ops.seeds import key_from_words, seed_words
from encdec.parallel import processes
from encdec.parallel.layout import Layout
from encdec.progress import Progress
from encdec.runs import checkpoints
from encdec.runs.checkpoints import Checkpoints
from encdec.runs.metrics_log import MetricsLog, Silent, describe_bad_lines
from encdec.runs.run import Run
from encdec.training import loop
from encdec.training.callbacks import Callback, log_rows, show_progress
from encdec.training.interruption import Interrupted, Interruption
from encdec.training.loop import LoopEnd
from encdec.training.optimizer import schedule
from encdec.training.pipeline import Pipeline, Say
from encdec.training.programs import Programs
from encdec.training.saving import Saver
from encdec.training.sharded_state import StateSharding
from encdec.training.start import Start
from encdec.training.step_reports import DivergedError
from encdec.types import InputError


def train_session(
    pipeline: Pipeline,
    programs: Programs,
    state_sharding: StateSharding,
    start: Start,
    callbacks: Sequence[Callback],
    say: Say,
    save_minutes: float,
) -> tuple[int, int]:
    """Trains a run up to `max_steps` or an earlier end.

    Args:
      pipeline: the run and its batches.
      programs: of this run, see `encdec.training.programs`.
      state_sharding, start: from `begin`.
      callbacks: see `encdec.training.callbacks`.
      say: is called with lines about the start, the steps and the end of training.
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
        end = _run_loop(
            pipeline, programs, state_sharding, start, saver, interruption, callbacks, say
        )
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
    programs: Programs,
    state_sharding: StateSharding,
    start: Start,
    saver: Saver,
    interruption: Interruption,
    callbacks: Sequence[Callback],
    say: Say,
) -> LoopEnd:
    """Runs the loop with log, progress bar and validation."""
    run, layout = pipeline.run, state_sharding.layout
    config, key = run.config.training, key_from_words(seed_words(run.config.seed))
    progress = _progress(config.max_steps, start.done, say)
    with _log(run, start.done) as log, progress as bar:
        log.write({"kind": "start", "step": start.done, **_environment(layout)})

        def announce(line: str, seconds: float) -> None:
            bar.say(line)
            bar.discount(seconds)

        try:
            with interruption:
                return loop.train(
                    programs.step.announced_by(announce),
                    start.state,
                    start.done,
                    pipeline.batches(start.done),
                    key,
                    config,
                    schedule(config),
                    evaluate=programs.evaluate,
                    saver=saver,
                    start=start.point,
                    interruption=interruption,
                    callbacks=(log_rows(log), show_progress(bar), *callbacks),
                )
        except DivergedError as error:
            raise _diverged(run, error) from error


def _log(run: Run, done: int) -> AbstractContextManager[MetricsLog | Silent]:
    return (
        MetricsLog(run.path, resume_step=done)
        if processes.is_main_process()
        else nullcontext(Silent())
    )


def _progress(steps: int, done: int, say: Say) -> AbstractContextManager[Progress | Silent]:
    return Progress(steps, done, say) if processes.is_main_process() else nullcontext(Silent())


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
    """The error for a loss that is not finite; writes a batch of text to the run folder."""
    path = run.path / "diverged.jsonl"
    src, tgt = jax.device_get((error.batch.src, error.batch.tgt))
    good = checkpoints.steps(run.path, "latest")
    kept = f"the checkpoint of step {good[-1]} is kept" if good else "no checkpoint was saved"
    if np.issubdtype(src.dtype, np.integer):
        rows = zip(src, tgt, strict=True)
        texts = [(run.src_vocabulary.decode(s), run.tgt_vocabulary.decode(t)) for s, t in rows]
        lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in texts if any(pair)]
        if processes.is_main_process():
            write_text(path, "".join(lines))
        kept += f", the batch's {len(lines)} sentences are in {path}: look at them"
    else:
        kept += ": look at the batch of this step"
    return InputError(
        f"step {error.step}: {error}; {kept}, or train a new run with a lower learning_rate, a "
        "longer warmup or a clip_norm"
    )
