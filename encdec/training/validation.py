"""What validation measures: metrics of translations, or the loss on batches."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from encdec.data.sources import Pairs
from encdec.evaluation import metrics
from encdec.inference.decoding import loss_program
from encdec.inference.translator import Translator
from encdec.parallel import sharding
from encdec.parallel.layout import Layout
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.search.options import SearchOptions
from encdec.training.loop import Evaluate
from encdec.types import Batch, Params


def translation_metrics(run: Run, valid: Pairs, layout: Layout, dtype: Any) -> Evaluate:
    """Metrics of greedy translations of the first `evaluate_sentences` pairs, and their loss.

    Args:
      run: settings and vocabularies.
      valid: pairs to validate on.
      layout: the devices.
      dtype: the type of products.
    """
    config = run.config.training
    sample = Pairs(*(side[: config.evaluate_sentences] for side in valid))
    names = metrics.NAMES if config.best_metric == "ter" else metrics.QUICK

    def evaluate(params: Params) -> dict[str, float]:
        translator = Translator(run, params, None, layout, dtype)
        evaluation = translator.evaluate(sample, SearchOptions(beam=1), names=names)
        values = evaluation.summary().items()
        return {name: value for name, value in values if isinstance(value, int | float)}

    return evaluate


def loss_on_batches(run: Run, valid: Sequence[Batch], layout: Layout, dtype: Any) -> Evaluate:
    """The mean loss on batches, nats per token; arguments as in `translation_metrics`."""
    program = loss_program(layout, model=build_model(run, layout), dtype=dtype)

    def on_devices(batch: Batch) -> Any:
        rows = sharding.local_batch_rows(len(batch.src), layout)
        return sharding.shard_batch(jax.tree.map(lambda x: np.asarray(x)[rows], batch), layout)

    def evaluate(params: Params) -> dict[str, float]:
        parts = [program(params, on_devices(batch)) for batch in valid]
        sums = [sharding.unreplicate(part, layout) for part in parts]
        nll, tokens = np.sum(sums, axis=0)
        return {"loss": float(nll / tokens)}

    return evaluate
