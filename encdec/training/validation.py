"""Validation: metrics of translations, or the loss on batches."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from encdec.config.search import SearchOptions
from encdec.data.sources import Pairs
from encdec.data.tokens import encode_pairs
from encdec.evaluation.compute import validation_metrics
from encdec.evaluation.options import metric_options
from encdec.inference.batch_search import BatchSearch
from encdec.inference.beam_memory import free_memory
from encdec.inference.decoding import Model
from encdec.inference.evaluate import evaluate
from encdec.inference.scoring import check_scoring, log_probs_program, rows_that_fit
from encdec.inference.sources import encode_sources
from encdec.inference.translator import Translator
from encdec.parallel import processes, sharding
from encdec.parallel.layout import Layout, scans_layers
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.training.loop import Evaluate
from encdec.types import Batch, InputError, Params, Precision


def translation_metrics(
    run: Run, valid: Pairs, layout: Layout, precision: Precision, *, reserved: int = 0
) -> Evaluate:
    """Builds the validation on text: metrics of greedy translations, and the loss.

    Its batches are smaller where the device has little memory, so that a run does not end at its
    first validation.

    Args:
      run: settings and vocabularies.
      valid: pairs to validate on; the first `evaluate_sentences` are used.
      layout: the devices.
      precision: of matrix products.
      reserved: bytes of each device that hold parameters and optimizer.

    Raises:
      InputError: a device has too little memory for the longest translation.

    Returns:
      A function from parameters on their devices to the metrics.
    """
    config = run.config.training
    sample = Pairs(*(side[: config.evaluate_sentences] for side in valid))
    options = metric_options(run.config)
    names = validation_metrics(config.best_metric, options)
    greedy = replace(run.config.search, beam=1, beam_groups=1, mbr=0, sample=False)
    # The same on all processes, because they search the same batches.
    memory = processes.least(free_memory(reserved))
    _check_memory(run, sample, greedy, layout, precision, reserved, memory)

    def validate(params: Params) -> dict[str, float]:
        translator = Translator(run, params, None, layout, precision, memory=memory)
        evaluation = evaluate(translator, sample, greedy, metrics=names, options=options)
        sentences, seconds = evaluation.metrics.sentences, evaluation.seconds
        return {"sentences": sentences, **evaluation.values, "seconds": seconds}

    return validate


def _check_memory(
    run: Run,
    pairs: Pairs,
    search: SearchOptions,
    layout: Layout,
    precision: Precision,
    reserved: int,
    memory: int,
) -> None:
    """Raises InputError if the longest pair alone needs more than `memory` bytes of a device."""
    source = encode_sources(run, [text for text in pairs.src if text.strip()], None)
    model = Model((build_model(run, layout, precision=precision),), "probabilities")
    batches = BatchSearch((run,), model, (), np.ones(1, np.float32), layout, memory)
    full_model = build_model(run, precision=precision)
    try:
        batches.check(source, search, alignments=False)
        examples = encode_pairs(pairs, run.src_vocabulary, run.tgt_vocabulary)
        check_scoring(examples, partial(rows_that_fit, full_model, layout, memory))
    except InputError as error:
        raise InputError(
            f"a validation does not fit beside parameters and optimizer, {reserved / 2**30:.2g} "
            f"GiB on each device: {error}; or validate on shorter sentences, or use a smaller "
            "model or more devices"
        ) from error


def loss_on_batches(
    run: Run, valid: Sequence[Batch], layout: Layout, precision: Precision
) -> Evaluate:
    """Builds the validation on batches: the mean loss, nats per token.

    Arguments and result are those of `translation_metrics`, with batches for pairs.
    """
    model = build_model(
        run, layout, scan=scans_layers(layout, run.config.model), precision=precision
    )
    program = log_probs_program(layout, model)

    def on_devices(batch: Batch) -> Any:
        rows = sharding.local_batch_rows(len(batch.src), layout)
        return sharding.shard_batch(jax.tree.map(lambda x: np.asarray(x)[rows], batch), layout)

    def validate(params: Params) -> dict[str, float]:
        parts = [program(params, on_devices(batch)) for batch in valid]
        blocks = [sharding.gather_batch(part, layout) for part in parts]
        log_prob = sum(block.sum(dtype=np.float64) for block in blocks)
        return {"loss": float(-log_prob / sum(batch.tgt_mask.sum() for batch in valid))}

    return validate
