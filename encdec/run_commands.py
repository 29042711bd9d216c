"""The commands that tell of runs: `encdec info`, `encdec plot` and `encdec export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from encdec import run as runs
from encdec.arguments import parse
from encdec.config import LOWER_IS_BETTER
from encdec.report.logs import json_line, measured
from encdec.run import Run
from encdec.run_model import parameter_count
from encdec.training import checkpoints
from encdec.types import InputError

# --- info ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _InfoOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    json: Annotated[bool, arg(help="One JSON object on stdout.")] = False


def info_command(arguments: list[str]) -> None:
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
        best = _best(rows.valid, config.training.select)
        found["best"] = {"step": best["step"], config.training.select: best[config.training.select]}
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
    names = ("bleu", "chrf", "ter", "exact_match", "symbol_errors", "sequence_errors", "loss")
    return {name: row[name] for name in names if row.get(name) is not None}


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# --- plot ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PlotOptions:
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="Run folders.")]
    out: Annotated[Path, arg(help="Picture to write: .png or .svg.")]
    score: Annotated[
        str, arg(help="What is drawn over the steps: loss (nats a token), bleu, exact_match ...")
    ] = "loss"
    by_length: Annotated[
        bool, arg(help="Instead: BLEU by source length, as `evaluate --by-length` noted it.")
    ] = False


def plot_command(arguments: list[str]) -> None:
    """Draws the curves of one or several runs.

    Raises:
      InputError: no run, nothing measured to draw, or a picture that cannot be written.
    """
    from encdec import pictures  # matplotlib takes its time to import
    from encdec.report.plots import save_figure

    options = parse(_PlotOptions, arguments, "encdec plot", "Draws learning curves.")
    if not options.runs:
        raise InputError("no run is named: give one or several run folders")
    opened = [runs.load(path) for path in options.runs]
    if options.by_length:
        figure = pictures.length_picture(opened)
    else:
        figure = pictures.learning_picture(opened, options.score)
    save_figure(figure, options.out)
    print(options.out)


# --- export --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ExportOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    out: Annotated[Path, arg(help="Folder to make.")]
    source_length: Annotated[
        int | None,
        arg(
            help="Source tokens, EOS among them, that the program takes; left out, 64 or as many "
            "as the run was trained for, whichever is fewer."
        ),
    ] = None


def export_command(arguments: list[str]) -> None:
    """Writes weights and a greedy search that need this package no more.

    Raises:
      InputError: no run, no checkpoint, or a folder that is there already.
    """
    from encdec.exporting import export_run  # its libraries take their time to import

    options = parse(_ExportOptions, arguments, "encdec export", "Weights and a program for others.")
    most = runs.load(options.run).config.data.max_source_length + 1
    length = min(64, most) if options.source_length is None else options.source_length
    if not 2 <= length <= most:
        raise InputError(
            f"source_length = {length} cannot be used: from 2 to {most}, the longest source that "
            "the run was trained for and its EOS"
        )
    for file in export_run(options.run, options.out, length):
        print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB")
