"""`encdec info`: describes a run: its model, its progress and its metrics."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from encdec.cli.parsing import parse
from encdec.config import DataConfig
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
    """Returns the facts about a run as JSON values, without those that are not known yet.

    `training` and `validation` are the last rows of measurements, `best` and `tested` are those of
    the parameters to translate with. Losses are in nats per token.
    """
    from encdec.runs.metrics_log import metric_rows
    from encdec.runs.parameters import parameter_count
    from encdec.training.fine_tuning import trained_count

    rows = metric_rows(run.path / "metrics.jsonl")
    facts = {
        "run": str(run.path),
        "model": run.config.model_name,
        "preset": preset_of(run.config),
        "corpus": _corpus(run),
        "parameters": parameter_count(run),
        "vocabulary": {"source": run.src_vocabulary.size, "target": run.tgt_vocabulary.size},
        "tokens": _tokens(run.config.data),
        **_progress(run),
        "languages": _languages(run),
        "trainable": trained_count(run) or None,
        "init": _init(run),
        "minutes": rows.minutes if rows.train else None,
        "training": _last(rows.train),
        "validation": _last(rows.valid),
        "trained on": _device(rows.start),
        "best": _best(rows.valid, run.config.training.best_metric),
        "tested": _tested(rows.test),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _tokens(data: DataConfig) -> dict[str, Any]:
    """The kinds of tokens of both sides, and whether both have the same vocabulary."""
    target = data.target_vocabulary or data.vocabulary
    return {"source": data.vocabulary, "target": target, "joint": data.joint_vocabulary}


def _progress(run: "Run") -> dict[str, Any]:
    """The steps that are done, or the format that the model was imported from."""
    from encdec.interop.hub import imported_kind
    from encdec.runs import checkpoints

    if run.is_import:
        return {"imported": imported_kind(run)}
    kept = [step for kind in ("latest", "best") for step in checkpoints.steps(run.path, kind)]
    done = max(kept, default=0)
    return {"steps": {"done": done, "of": run.config.training.max_steps}}


def _languages(run: "Run") -> dict[str, Any] | None:
    """The languages, and how many there are where a person may choose."""
    from encdec.data.pretrained_vocabulary import PretrainedVocabulary

    data, vocabulary = run.config.data, run.tgt_vocabulary
    pair = {"from": data.source_language, "to": data.target_language}
    if isinstance(vocabulary, PretrainedVocabulary) and vocabulary.languages:
        return {**pair, "known": len(vocabulary.languages)}
    return pair if data.source_language != data.target_language else None


def _init(run: "Run") -> dict[str, Any] | None:
    """Where the first parameters are from, if not random."""
    origin = run.config.fine_tuning.init_from or "the caller of encdec.train"
    return {"from": origin, "sha256": run.init[:12]} if run.init else None


def _device(starts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What the run was last started on."""
    return {k: starts[-1].get(k) for k in ("device", "jax", "date")} if starts else None


def _corpus(run: "Run") -> str | None:
    """What the run is trained on; None for an imported model."""
    data = run.config.data
    if run.corpus is None:
        return None if run.is_import else "batches from Python"
    if data.corpus:
        return f"{data.corpus} {data.train_split}"
    files = [*data.tsv, *data.source, *data.target]
    return ", ".join(files) or f"{data.date_sentences:,} dates, or pairs from Python"


def _best(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The step and value of the best validation; of equal ones by loss, then step."""
    sign = metric(name).sign
    measured = [row for row in rows if row.get(name) is not None]
    if not measured:
        return None
    best = max(measured, key=lambda r: (sign * r[name], -(r.get("loss") or 0), r["step"]))
    return {"step": best["step"], name: best[name]}


def _tested(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The last test of each name."""
    last = {row.get("name"): row for row in rows}
    each = [
        {"name": name, "step": row["step"], "beam": row.get("beam"), **_metrics(row)}
        for name, row in last.items()
    ]
    return each or None


def _last(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The step and the metrics of the last row that has any."""
    measured = [row for row in rows if _metrics(row)]
    return {"step": measured[-1]["step"], **_metrics(measured[-1])} if measured else None


def _metrics(row: dict[str, Any]) -> dict[str, Any]:
    """The metrics in a row, in the order of `METRICS`."""
    return {name: row[name] for name in METRICS if row.get(name) is not None}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
