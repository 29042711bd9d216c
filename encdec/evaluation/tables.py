"""Metrics as aligned text."""

from collections.abc import Sequence

from encdec.config import LOWER_IS_BETTER
from encdec.evaluation.by_length import LengthBucket
from encdec.evaluation.metrics import NAMES, MetricName, Metrics
from encdec.evaluation.significance import LEVEL, Comparison

_TITLES: dict[MetricName, str] = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "exact_match": "exact match",
    "sequence_error_rate": "sequence error rate",
    "token_error_rate": "token error rate",
}
_UNITS: dict[MetricName, str] = {
    "exact_match": "of 1",
    "sequence_error_rate": "of 100",
    "token_error_rate": "in 100 symbols",
}


def scores_text(scores: Metrics, loss: float) -> str:
    """A line a score, sacreBLEU's with their signatures, and one for the loss (nats a token)."""
    lines = []
    for name in NAMES:
        value = getattr(scores, name)
        if value is not None:
            note = _UNITS.get(name) or getattr(scores, f"{name}_signature")
            lines.append(f"  {_TITLES[name]:<15}  {_number(name, value):>8}  {note}")
    return "\n".join([*lines, f"  {'loss':<15}  {loss:>8.4f}  nats a token"])


def lengths_text(classes: Sequence[LengthBucket]) -> str:
    """A row a class of source lengths, in words; a column a score."""
    names = [name for name in NAMES if getattr(classes[0].scores, name) is not None]
    rows = [["source words", "sentences", "mean words", *(_TITLES[name] for name in names)]]
    for one in classes:
        values = [_number(name, getattr(one.scores, name)) for name in names]
        rows.append([one.label, str(one.scores.sentences), f"{one.mean_length:.1f}", *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"  {first:<{widths[0]}}", *cells]))
    return "\n".join(lines)


def comparison_text(found: Comparison, a: str, b: str) -> str:
    """Both scores, their difference, how likely chance makes it, and the verdict.

    Args:
      found: the comparison.
      a, b: names of the two systems.
    """
    width = max(len(a), len(b), len("difference"))

    def line(label: str, value: str, note: str = "") -> str:
        return f"  {label:<{width}}  {value:>8}{note}"

    def number(value: float) -> str:
        return _number(found.metric, value)

    better = "lower" if found.metric in LOWER_IS_BETTER else "higher"
    return "\n".join(
        [
            f"{_TITLES[found.metric]} of {found.sentences} sentences, {better} is better",
            line(a, number(found.score_a), f"  ± {number(found.interval_a)}"),
            line(b, number(found.score_b), f"  ± {number(found.interval_b)}"),
            line("difference", f"{'+' * (found.difference >= 0)}{number(found.difference)}"),
            line("p", f"{found.p_value:.4f}"),
            f"{_verdict(found, a, b)}",
            f"paired bootstrap, {found.samples} samples, ± is 95 %: {found.signature}",
        ]
    )


def _verdict(found: Comparison, a: str, b: str) -> str:
    if found.better is None:
        return f"No significant difference: p is not below {LEVEL}."
    winner, loser = (a, b) if found.better == "a" else (b, a)
    return f"{winner} is better than {loser}: p is below {LEVEL}."


def _number(name: MetricName, value: float) -> str:
    return f"{value:.4f}" if name == "exact_match" else f"{value:.2f}"
