"""Pictures of runs and translations, as matplotlib figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from encdec.config import nearest
from encdec.evaluation.by_length import LengthBucket
from encdec.evaluation.metrics import METRICS
from encdec.inference.translation import Translation
from encdec.inference.translator import Translator
from encdec.plots.attention import attention_figure
from encdec.plots.curves import length_figure, line_figure
from encdec.runs.metrics_log import metric_rows, read_metrics
from encdec.runs.run import Run
from encdec.types import InputError, MapKind


def attention_picture(
    translator: Translator,
    translation: Translation,
    kind: MapKind = "encoder-decoder",
    layer: int | None = None,
    head: int | None = None,
) -> Figure:
    """Draws a grid of a translation's attention maps, one row per layer and one column per head.

    Args:
      translator: the translator that made the translation.
      translation: a translation with its alignment.
      kind: encoder-decoder attention, or the self-attention of one side.
      layer, head: counted from 1; None draws all of them.

    Raises:
      InputError: the model has no such map, or the translation has no alignment.
    """
    config = translator.run.config
    weights, titles = translator.attention(translation, kind), None
    layers, heads = config.model.attention_grid
    if layers * heads > 1:
        chosen = np.arange(layers * heads).reshape(layers, heads)
        chosen = chosen[_one("layer", layer, layers), _one("head", head, heads)]
        weights, heads = weights[chosen.ravel()], chosen.shape[1]
        titles = [translator.map_names[i] for i in chosen.ravel()]
    elif layer not in (None, 1) or head not in (None, 1):
        raise InputError(f"{translator.run.path} has only one map: leave out layer and head")
    rows = translation.src_tokens if kind == "encoder" else translation.tgt_tokens
    vocab = translator.run.tgt_vocabulary
    before = [*vocab.tokens([vocab.specials.start]), *translation.tgt_tokens[:-1]]
    columns = before if kind == "decoder" else translation.src_tokens
    return attention_figure(weights, columns, rows, titles, heads)


def _one(name: str, number: int | None, count: int) -> slice:
    """The slice of one layer or head, counted from 1, or of all if the number is None."""
    if number is None:
        return slice(None)
    if not 1 <= number <= count:
        raise InputError(f"{name} = {number} does not exist: the model has 1 to {count}")
    return slice(number - 1, number)


def learning_picture(opened: Sequence[Run], metric: str = "loss") -> Figure:
    """Draws a metric over the steps of training, one line for each run.

    The values are those of validation; the loss of training is drawn too.

    Args:
      opened: the runs.
      metric: the name of a number in the rows of `metrics.jsonl`.

    Raises:
      InputError: a run has not measured this metric.
    """
    return line_figure(learning_curves(opened, metric), "step", _axis_label(metric))


def _axis_label(name: str) -> str:
    """A metric's title and unit, such as `loss, nats per token`; for other numbers their name."""
    if name == "tokens_per_second":
        return "target tokens per second"
    row = METRICS.get(name)
    if row is None:
        return name.replace("_", " ")
    return f"{row.title}, {row.unit}" if row.unit else row.title


def length_picture(opened: Sequence[Run]) -> Figure:
    """Draws BLEU by source length, one line for each run.

    Raises:
      InputError: a run has not measured this metric.
    """
    return length_figure({name: _length_buckets(run) for name, run in named(opened).items()})


def learning_curves(
    opened: Sequence[Run], metric: str
) -> dict[str, tuple[list[float], list[float]]]:
    """Returns the steps and values of each run's validations; of the loss in training too.

    A number that only training measures, such as `tokens_per_second`, is that of training.

    Raises:
      InputError: a run has not measured this metric.
    """
    curves = {}
    for name, run in named(opened).items():
        by_kind = metric_rows(run.path / "metrics.jsonl")
        validated = any(row.get(metric) is not None for row in by_kind.valid)
        lines = {"": by_kind.valid if validated else by_kind.train}
        if metric == "loss":
            lines = {", validation": by_kind.valid, ", training": by_kind.train}
        for suffix, rows in lines.items():
            rows = [row for row in rows if row.get(metric) is not None]
            if not rows:
                raise InputError(_no_such(run, metric, [*by_kind.valid, *by_kind.train]))
            curves[name + suffix] = (
                [float(row["step"]) for row in rows],
                [float(row[metric]) for row in rows],
            )
    return curves


def _no_such(run: Run, metric: str, rows: Sequence[dict[str, Any]]) -> str:
    """An error that lists the metrics that a run has measured."""
    numbers = {n for row in rows for n, value in row.items() if isinstance(value, int | float)}
    there = sorted(numbers - {"step"})
    has = f"it has {', '.join(there)}" if there else "nothing was measured yet"
    guess = nearest(metric, there)
    return f"{run.path} has no {metric} in its metrics.jsonl to draw{guess} ({has})"


def named(opened: Sequence[Run]) -> dict[str, Run]:
    """Runs by the names of their folders; by their paths where two folders have the same name."""
    paths = [run.path.resolve() for run in opened]
    names = [path.name for path in paths]
    short = len(set(names)) == len(set(paths))
    return dict(zip(names if short else map(str, paths), opened, strict=True))


def _length_buckets(run: Run) -> list[LengthBucket]:
    rows = [row for row in read_metrics(run.path / "metrics.jsonl") if "by_length" in row]
    if not rows:
        raise InputError(
            f"{run.path} has no metrics by length: run `encdec evaluate {run.path} --by-length`"
        )
    try:
        return [LengthBucket.from_summary(row) for row in rows[-1]["by_length"]]
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{run.path / 'metrics.jsonl'}: the latest metrics by length are damaged: measure them "
            f"again by `encdec evaluate {run.path} --by-length`"
        ) from error
