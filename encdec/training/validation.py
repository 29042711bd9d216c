"""Validation: metrics of translations, or the loss on batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from encdec.data.sources import Pairs
from encdec.evaluation.compute import validation_metrics
from encdec.evaluation.options import metric_options
from encdec.inference.evaluate import evaluate
from encdec.inference.scoring import log_probs_program
from encdec.inference.translator import Translator
from encdec.parallel import sharding
from encdec.parallel.layout import Layout
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.training.loop import Evaluate
from encdec.types import Batch, Params, Precision


def translation_metrics(run: Run, valid: Pairs, layout: Layout, precision: Precision) -> Evaluate:
    """Builds the validation on text: metrics of greedy translations, and the loss.

    Args:
      run: settings and vocabularies.
      valid: pairs to validate on; the first `evaluate_sentences` are used.
      layout: the devices.
      precision: of matrix products.

    Returns:
      A function from parameters on their devices to the metrics.
    """
    config = run.config.training
    sample = Pairs(*(side[: config.evaluate_sentences] for side in valid))
    options = metric_options(run.config)
    names = validation_metrics(config.best_metric, options)

    def validate(params: Params) -> dict[str, float]:
        translator = Translator(run, params, None, layout, precision)
        greedy = replace(run.config.search, beam=1, sample=False)
        evaluation = evaluate(translator, sample, greedy, metrics=names, options=options)
        sentences, seconds = evaluation.metrics.sentences, evaluation.seconds
        return {"sentences": sentences, **evaluation.values, "seconds": seconds}

    return validate


def loss_on_batches(
    run: Run, valid: Sequence[Batch], layout: Layout, precision: Precision
) -> Evaluate:
    """Builds the validation on batches: the mean loss, nats per token.

    Arguments and result are those of `translation_metrics`, with batches for pairs.
    """
    program = log_probs_program(layout, model=build_model(run, layout, precision=precision))

    def on_devices(batch: Batch) -> Any:
        rows = sharding.local_batch_rows(len(batch.src), layout)
        return sharding.shard_batch(jax.tree.map(lambda x: np.asarray(x)[rows], batch), layout)

    def validate(params: Params) -> dict[str, float]:
        parts = [program(params, on_devices(batch)) for batch in valid]
        blocks = [sharding.gather_batch(part, layout) for part in parts]
        log_prob = sum(block.sum(dtype=np.float64) for block in blocks)
        return {"loss": float(-log_prob / sum(batch.tgt_mask.sum() for batch in valid))}

    return validate
