"""Writes the table of results in `experiments/README.md` from run folders.

    python experiments/table.py runs/{multi30k,g2p}-*/

The `metrics.jsonl` of a run says where, when and for how long it was trained, and holds its test
metrics. This script copies these from each named folder to `experiments/results.json`, where they
replace an older row of the same run, and writes the table from that file. Without a folder it only
writes the table.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from encdec.runs import run as runs
from encdec.runs.metrics_log import metric_rows
from encdec.runs.parameters import parameter_count
from encdec.types import InputError

HERE = Path(__file__).parent
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

SHOWN = {
    "multi30k": ("bleu", "BLEU {:.2f}"),
    "long": ("bleu", "BLEU {:.2f}"),
    "g2p": ("sequence_error_rate", "{:.2f} % words wrong"),
    "scan": ("exact_match", "exact match {:.4f}"),
}
"""For each experiment, the metric in its table and the format of the value."""

TEST_KEY = ("name", "beam", "length_penalty", "detokenize", "bleu_signature")
"""The fields in which two test rows of a run differ; of equal rows the last is kept."""


@dataclass(frozen=True)
class Options:
    """The sources of the table."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = field(default=())
    """Run folders whose names begin with the name of their experiment: multi30k-attention."""
    results: Path = HERE / "results.json"
    """JSON file with the results of all runs."""
    page: Path = HERE / "README.md"
    """The page with the table."""


def record(folder: Path) -> dict[str, Any]:
    """Reads the results of a run, as JSON values.

    Raises:
      InputError: the folder is not a run folder, its name is not that of an experiment, or the run
        has not been tested yet.
    """
    run = runs.load(folder)
    if folder.name.split("-")[0] not in SHOWN:
        raise InputError(f"{folder} belongs to no experiment: names begin with {', '.join(SHOWN)}")
    rows = metric_rows(folder / "metrics.jsonl")
    if not rows.test or not rows.train:
        raise InputError(f"{folder} has no test metrics: run its experiment to the end")
    return {
        "model": run.config.model_name,
        "parameters": parameter_count(run),
        "seed": run.config.seed,
        "steps": rows.train[-1]["step"],
        "minutes": rows.minutes,
        **{name: rows.start[-1][name] for name in ("device", "jax", "date")},
        # The last row for each test set and search.
        "tests": list({tuple(map(row.get, TEST_KEY)): row for row in rows.test}.values()),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The table, in Markdown."""
    columns = ("run", "test set", "beam, length penalty", "score", "parameters", "steps")
    head = f"| {' | '.join((*columns, 'training, minutes', 'device', 'date'))} |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name, result in sorted(results.items()):
        metric, text = SHOWN[name.split("-")[0]]
        for test in result["tests"]:
            if metric not in test:  # only other metrics were computed
                continue
            cells = [
                f"`{name}`",
                test["name"],
                f"{test['beam']}, {test['length_penalty']:g}",
                text.format(test[metric]),
                f"{result['parameters']:,}",
                f"{result['steps']:,}",
                f"{result['minutes']:.0f}",
                result["device"],
                result["date"][:10],
            ]
            lines.append("| " + " | ".join(cells) + " |")
            lines += by_length(name, test) if "by_length" in test else []
    return "\n".join(lines)


def by_length(name: str, test: dict[str, Any]) -> Iterable[str]:
    """A row for each range of source lengths."""
    for row in test["by_length"]:
        end = "and more" if row["to"] is None else f"to {row['to']}"
        yield f"| | {row['from']} {end} words | | BLEU {row['bleu']:.2f} | | | | | |"


def written(page: str, results: dict[str, dict[str, Any]]) -> str:
    """The page with a new table.

    Raises:
      InputError: the page does not mark the place of the table.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"the page has no {BEGIN} with {END} after it")
    return f"{before}{BEGIN}\n{table(results)}\n{END}{after}"


def main(options: Options) -> None:
    """Adds the results of the runs and writes the table."""
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    results |= {folder.name: record(folder) for folder in options.runs}
    page = written(options.page.read_text(encoding="utf-8"), results)
    options.results.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    options.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"table.py: {error}")
