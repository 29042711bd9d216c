"""The compiled step and the validation of a session, and whether they fit into memory."""

from functools import partial
from typing import NamedTuple

from encdec.data.batches import largest_batches
from encdec.data.bucketing import Bucketing
from encdec.data.sources import Pairs
from encdec.ops.seeds import key_from_words, seed_words
from encdec.parallel import processes, sharding
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.training.compiled_step import CompiledStep
from encdec.training.family_check import check_family
from encdec.training.loop import Evaluate
from encdec.training.memory import check_memory
from encdec.training.pipeline import Pipeline, Say, local_rows
from encdec.training.sharded_state import StateSharding
from encdec.training.start import Start
from encdec.training.step import TrainState
from encdec.training.validation import loss_on_batches, translation_metrics


class Programs(NamedTuple):
    """What a session runs.

    Attributes:
      step: the step of training.
      evaluate: the validation; None if there is no validation data, or the run has ended.
    """

    step: CompiledStep
    evaluate: Evaluate | None


def prepare(pipeline: Pipeline, state_sharding: StateSharding, start: Start, say: Say) -> Programs:
    """Makes the programs of a session and checks that they fit into memory.

    The step is compiled for the batches that may need the most, where the shapes of batches are
    known. A run that has ended needs neither program, so nothing is compiled or checked.

    Raises:
      InputError: a batch, or the search of a validation, does not fit; or a model of a new run
        cannot be searched.
    """
    bucketing = pipeline.bucketing
    shapes = bucketing and len(bucketing.buckets)
    step = CompiledStep(state_sharding, shapes, lambda line, _: say(line))
    if start.has_ended(pipeline.run.config.training):
        return Programs(step, None)
    if pipeline.is_new:
        check_family(build_model(pipeline.run))
    evaluate = _evaluate(pipeline, state_sharding, start.state)
    if bucketing is not None:
        _compile_largest(step, pipeline.run, bucketing, state_sharding, start.state, say)
    return Programs(step, evaluate)


def _compile_largest(
    step: CompiledStep,
    run: Run,
    bucketing: Bucketing,
    state_sharding: StateSharding,
    state: TrainState,
    say: Say,
) -> None:
    """Compiles a step for the batches that may need the most memory, and checks that they fit."""
    layout, shapes = state_sharding.layout, len(bucketing.buckets)
    say(
        f"batches have {shapes} shape{'s' if shapes != 1 else ''}: before its first batch, the "
        "step is compiled for each of them"
    )
    key = key_from_words(seed_words(run.config.seed))
    largest = largest_batches(bucketing, local_rows(run.config, layout))
    each = [step.compile(state, one, key, measure=True) for one in largest]
    needed = None if None in each else max(n for n in each if n is not None)
    fixed = sharding.bytes_per_device(state, layout)
    fits = partial(check_memory, bucketing, run.config.data.batch_tokens, layout)
    processes.on_all_processes(lambda: fits(needed, fixed))


def _evaluate(
    pipeline: Pipeline, state_sharding: StateSharding, state: TrainState
) -> Evaluate | None:
    """The validation, which fits beside the state; None if there is no validation data."""
    run, valid, precision = pipeline.run, pipeline.valid, state_sharding.precision
    layout = state_sharding.layout
    if isinstance(valid, Pairs):
        reserved = sharding.bytes_per_device(state, layout)
        return translation_metrics(run, valid, layout, precision, reserved=reserved)
    return loss_on_batches(run, valid, layout, precision) if valid else None
