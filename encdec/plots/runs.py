"""Pictures of runs and translations, as matplotlib figures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from encdec.evaluation.by_length import LengthBucket
from encdec.evaluation.metrics import METRICS
from encdec.inference.translator import Translation, Translator
from encdec.plots.attention import attention_figure
from encdec.plots.curves import length_figure, line_figure
from encdec.runs.metrics_log import metric_rows, read_metrics
from encdec.runs.run import Run
from encdec.types import InputError, MapKind


def attention_picture(
    translator: Translator,
    found: Translation,
    kind: MapKind = "encoder-decoder",
    layer: int | None = None,
    head: int | None = None,
) -> Figure:
    """A grid of a translation's maps, a row a layer and a column a head.

    Args:
      translator, found: what translated, and what it found, with its alignment.
      kind: who looks at whom.
      layer, head: of these alone, counted from 1.

    Raises:
      InputError: a map that is not there, or a translation without its alignment.
    """
    config = translator.run.config
    weights, titles = translator.attention(found, kind), None
    layers, heads = config.model.attention_grid
    if layers * heads > 1:
        chosen = np.arange(layers * heads).reshape(layers, heads)
        chosen = chosen[_one("layer", layer, layers), _one("head", head, heads)]
        weights, heads = weights[chosen.ravel()], chosen.shape[1]
        titles = [translator.map_names[i] for i in chosen.ravel()]
    elif layer not in (None, 1) or head not in (None, 1):
        raise InputError(f"{translator.run.path} has one map alone: leave out layer and head")
    rows = found.src_tokens if kind == "encoder" else found.tgt_tokens
    vocab = translator.run.tgt_vocabulary
    before = [*vocab.tokens([vocab.specials.start]), *found.tgt_tokens[:-1]]
    columns = before if kind == "decoder" else found.src_tokens
    return attention_figure(weights, columns, rows, titles, heads)


def _one(name: str, number: int | None, count: int) -> slice:
    """The layer or head of a number, or all."""
    if number is None:
        return slice(None)
    if not 1 <= number <= count:
        raise InputError(f"{name} = {number} is not there: the model has 1 to {count}")
    return slice(number - 1, number)


def learning_picture(opened: Sequence[Run], metric: str = "loss") -> Figure:
    """A metric over the steps of training, a line for each run.

    The values are those of validation; for the loss those of training are drawn too.

    Args:
      opened: the runs.
      metric: any number that the rows of `metrics.jsonl` have.

    Raises:
      InputError: a run has not measured it.
    """
    return line_figure(learning_curves(opened, metric), "step", _axis_label(metric))


def _axis_label(name: str) -> str:
    """`loss, nats per token`, `BLEU`; other numbers by their own name."""
    if name == "tokens_per_second":
        return "target tokens per second"
    row = METRICS.get(name)
    if row is None:
        return name.replace("_", " ")
    return f"{row.title}, {row.unit}" if row.unit else row.title


def length_picture(opened: Sequence[Run]) -> Figure:
    """BLEU by source length, a line for each run.

    Raises:
      InputError: a run has not measured it.
    """
    return length_figure({name: _length_buckets(run) for name, run in named(opened).items()})


def learning_curves(
    opened: Sequence[Run], metric: str
) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of each run's validations; for the loss those of training too.

    Raises:
      InputError: a run has not measured it.
    """
    curves = {}
    for name, run in named(opened).items():
        by_kind = metric_rows(run.path / "metrics.jsonl")
        lines = {"": by_kind.valid}
        if metric == "loss":
            lines = {", validation": by_kind.valid, ", training": by_kind.train}
        for suffix, rows in lines.items():
            rows = [row for row in rows if row.get(metric) is not None]
            if not rows:
                raise InputError(f"{run.path} has no {metric} in its metrics.jsonl to draw")
            curves[name + suffix] = (
                [float(row["step"]) for row in rows],
                [float(row[metric]) for row in rows],
            )
    return curves


def named(opened: Sequence[Run]) -> dict[str, Run]:
    """Runs by the names of their folders; where two folders have one name, by their paths."""
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
    return [LengthBucket.from_summary(row) for row in rows[-1]["by_length"]]
