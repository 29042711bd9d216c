"""Metrics as aligned text."""

from collections.abc import Mapping, Sequence

from encdec.evaluation.by_length import LengthBucket
from encdec.evaluation.metrics import METRICS, metric, printed_metrics
from encdec.evaluation.significance import LEVEL, Comparison


def metrics_text(values: Mapping[str, float], signatures: Mapping[str, str]) -> str:
    """A line for each metric: its title, its value, and its unit or sacreBLEU's signature."""
    names = printed_metrics(values)
    width = max(len(METRICS[name].title) for name in names)
    return "\n".join(
        f"  {METRICS[name].title:<{width}}  {METRICS[name].format(values[name]):>8}  "
        f"{METRICS[name].unit or signatures[name]}"
        for name in names
    )


def lengths_text(buckets: Sequence[LengthBucket]) -> str:
    """A row for each range of source lengths, in words, and a column for each metric."""
    shown = {name: row for name, row in METRICS.items() if name in buckets[0].metrics.values}
    titles = [row.title for row in shown.values()]
    rows = [["source words", "sentences", "mean words", *titles]]
    for bucket in buckets:
        values = [row.format(bucket.metrics[name]) for name, row in shown.items()]
        size, mean = str(bucket.metrics.sentences), f"{bucket.mean_length:.1f}"
        rows.append([bucket.label, size, mean, *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"  {first:<{widths[0]}}", *cells]))
    return "\n".join(lines)


def comparison_text(comparison: Comparison, a: str, b: str) -> str:
    """The metric of two systems, the difference, its p-value, and the verdict.

    Args:
      comparison: what was compared.
      a, b: names of the two systems.
    """
    row, width = metric(comparison.metric), max(len(a), len(b), len("difference"))

    def line(label: str, value: str, note: str = "") -> str:
        return f"  {label:<{width}}  {value:>8}{note}"

    better = "higher" if row.higher_is_better else "lower"
    sign = "+" if comparison.difference >= 0 else ""
    return "\n".join(
        [
            f"{row.title} of {comparison.sentences} sentences, {better} is better",
            line(a, row.format(comparison.value_a), f"  ± {row.format(comparison.interval_a)}"),
            line(b, row.format(comparison.value_b), f"  ± {row.format(comparison.interval_b)}"),
            line("difference", f"{sign}{row.format(comparison.difference)}"),
            line("p", f"{comparison.p_value:.4f}"),
            _verdict(comparison, a, b),
            f"paired bootstrap, {comparison.samples} samples, ± is the 95 % interval: "
            f"{comparison.signature}",
        ]
    )


def _verdict(comparison: Comparison, a: str, b: str) -> str:
    if comparison.better is None:
        return f"No significant difference: p is not below {LEVEL}."
    winner, loser = (a, b) if comparison.better == "a" else (b, a)
    return f"{winner} is better than {loser}: p is below {LEVEL}."
