"""`encdec info`: describes a run: its model, its progress and its metrics."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse
from encdec.config.presets import preset_of
from encdec.evaluation.metrics import METRICS, metric

if TYPE_CHECKING:
    from encdec.runs.run import Run


@dataclass(frozen=True)
class _InfoOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    json: Annotated[bool, arg(help="Print one JSON object.")] = False


def run(arguments: list[str]) -> None:
    """Prints the model, the progress and the metrics of a run.

    Raises:
      InputError: the folder is not a run folder.
    """
    options = parse(_InfoOptions, arguments, "encdec info", "Describes a run.")

    from encdec.runs import run as runs
    from encdec.runs.metrics_log import describe_bad_lines, json_line

    opened = runs.load(options.run)
    if note := describe_bad_lines(opened.path / "metrics.jsonl"):
        print(f"encdec: {note}", file=sys.stderr)
    facts = info(opened)
    if options.json:
        print(json_line(facts))
        return
    for name, value in facts.items():
        lines = value if isinstance(value, list) else [value]
        for i, line in enumerate(lines):
            print(f"{'' if i else name:<12}  {_text(line)}")


def info(run: "Run") -> dict[str, Any]:
    """Returns the facts about a run as JSON values, without those that are not known yet."""
    from encdec.data.pretrained_vocabulary import PretrainedVocabulary
    from encdec.interop.hub import imported_kind
    from encdec.runs import checkpoints
    from encdec.runs.metrics_log import metric_rows
    from encdec.runs.parameters import parameter_count
    from encdec.training.fine_tuning import trained_count

    config, data, rows = run.config, run.config.data, metric_rows(run.path / "metrics.jsonl")
    latest = checkpoints.steps(run.path, "latest")
    facts: dict[str, Any] = {
        "run": str(run.path),
        "model": config.model_name,
        "preset": preset_of(config),
        "corpus": _corpus(run),
        "parameters": parameter_count(run),
        "vocabulary": {"source": run.src_vocabulary.size, "target": run.tgt_vocabulary.size},
    }
    of_target = data.target_vocabulary or data.vocabulary
    facts["tokens"] = {
        "source": data.vocabulary,
        "target": of_target,
        "joint": data.joint_vocabulary,
    }
    if run.is_import:
        facts["imported"] = imported_kind(run)
    else:
        facts["steps"] = {"done": latest[-1] if latest else 0, "of": config.training.max_steps}
    vocabulary = run.tgt_vocabulary
    if isinstance(vocabulary, PretrainedVocabulary) and vocabulary.languages:
        facts["languages"] = {
            "from": data.source_language,
            "to": data.target_language,
            "known": len(vocabulary.languages),
        }
    elif data.source_language != data.target_language:
        facts["languages"] = {"from": data.source_language, "to": data.target_language}
    if trained := trained_count(run):
        facts["trainable"] = trained
    if run.init:
        facts["init"] = {
            "from": config.fine_tuning.init_from or "the caller of encdec.train",
            "sha256": run.init[:12],
        }
    if rows.train:
        facts["minutes"] = rows.minutes
    if rows.start:
        facts["trained on"] = {k: rows.start[-1].get(k) for k in ("device", "jax", "date")}
    name = config.training.best_metric
    if measured := [row for row in rows.valid if row.get(name) is not None]:
        best = _best(measured, name)
        facts["best"] = {"step": best["step"], name: best[name]}
    tests = {row.get("name"): row for row in rows.test}  # the last of each name
    if tests:
        facts["tested"] = [
            {"name": name, "step": row["step"], "beam": row.get("beam"), **_metrics(row)}
            for name, row in tests.items()
        ]
    return {name: value for name, value in facts.items() if value is not None}


def _corpus(run: "Run") -> str | None:
    """What the run is trained on; None for an imported model."""
    data = run.config.data
    if run.corpus is None:
        return None if run.is_import else "batches from Python"
    if data.corpus:
        return f"{data.corpus} {data.train_split}"
    files = [*data.tsv, *data.source, *data.target]
    return ", ".join(files) or f"{data.date_sentences:,} dates, or pairs from Python"


def _best(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """The row with the best value of a metric; of equal ones by loss, then step."""
    sign = metric(name).sign
    return max(rows, key=lambda row: (sign * row[name], -(row.get("loss") or 0), row["step"]))


def _metrics(row: dict[str, Any]) -> dict[str, Any]:
    """The metrics in a row, in the order of `METRICS`."""
    return {name: row[name] for name in METRICS if row.get(name) is not None}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
