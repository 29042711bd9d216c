"""`encdec info`: what a run is, how far it got and how it scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse
from encdec.config import LOWER_IS_BETTER
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.metrics_log import json_line, measured
from encdec.runs.parameters import parameter_count
from encdec.runs.run import Run


@dataclass(frozen=True)
class _InfoOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    json: Annotated[bool, arg(help="One JSON object on stdout.")] = False


def run(arguments: list[str]) -> None:
    """Tells what a run is, how far it got and how it scored.

    Raises:
      InputError: it is no run.
    """
    options = parse(_InfoOptions, arguments, "encdec info", "Tells what a run is.")
    found = info(runs.load(options.run))
    if options.json:
        print(json_line(found))
        return
    for name, value in found.items():
        lines = value if isinstance(value, list) else [value]
        for i, line in enumerate(lines):
            print(f"{'' if i else name:<12}  {_told(line)}")


def info(run: Run) -> dict[str, Any]:
    """What stands in a run folder, as JSON values; what is not there yet is left out."""
    config, rows = run.config, measured(run.path / "metrics.jsonl")
    latest = checkpoints.steps(run.path, "latest")
    found: dict[str, Any] = {
        "run": str(run.path),
        "model": config.model_name,
        "parameters": parameter_count(run),
        "vocabulary": {"source": run.src_vocabulary.size, "target": run.tgt_vocabulary.size},
        "steps": {"done": latest[-1] if latest else 0, "of": config.training.max_steps},
    }
    if rows.train:
        found["minutes"] = rows.minutes
    if rows.start:
        found["trained on"] = {k: rows.start[-1].get(k) for k in ("device", "jax", "date")}
    if rows.valid:
        best = _best(rows.valid, config.training.best_metric)
        found["best"] = {
            "step": best["step"],
            config.training.best_metric: best[config.training.best_metric],
        }
    tests = {row["name"]: row for row in rows.test}  # the last of each name
    if tests:
        found["tested"] = [
            {"name": name, "step": row["step"], "beam": row["beam"], **_scores(row)}
            for name, row in tests.items()
        ]
    return found


def _best(rows: Sequence[dict[str, Any]], score: str) -> dict[str, Any]:
    sign = -1 if score in LOWER_IS_BETTER else 1
    return max(rows, key=lambda row: (sign * row[score], row["step"]))


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    names = (
        "bleu",
        "chrf",
        "ter",
        "exact_match",
        "token_error_rate",
        "sequence_error_rate",
        "loss",
    )
    return {name: row[name] for name in names if row.get(name) is not None}


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
