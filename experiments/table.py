"""Writes the table of results in `experiments/README.md` from run folders.

    python experiments/table.py runs/{multi30k,g2p}-*/

What a run measured stands in its `metrics.jsonl`: where and when it trained, for how long, and how
it scored. This script takes that out of each folder named, keeps it in `experiments/results.json`
(an older row of the same run is replaced), and writes the table anew from there. With no folder it
only writes the table.
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
"""For each experiment, the score its table shows."""


TOLD_APART = ("name", "beam", "length_penalty", "detokenize", "bleu_signature")
"""What makes two tests of a run two rows."""


@dataclass(frozen=True)
class Options:
    """What the table is made from."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = field(default=())
    """Run folders whose names begin with that of their experiment, as in multi30k-attention."""
    results: Path = HERE / "results.json"
    """Where what was measured is kept."""
    page: Path = HERE / "README.md"
    """The page with the table."""


def record(folder: Path) -> dict[str, Any]:
    """What a run measured.

    Raises:
      InputError: it is no run folder, of no known experiment, or has not been tested yet.
    """
    run = runs.load(folder)
    if folder.name.split("-")[0] not in SHOWN:
        raise InputError(f"{folder} is of no experiment: its name begins with {', '.join(SHOWN)}")
    rows = metric_rows(folder / "metrics.jsonl")
    if not rows.test or not rows.train:
        raise InputError(f"{folder} has no test scores: run its experiment to the end")
    return {
        "model": run.config.model_name,
        "parameters": parameter_count(run),
        "seed": run.config.seed,
        "steps": rows.train[-1]["step"],
        "minutes": rows.minutes,
        **{name: rows.start[-1][name] for name in ("device", "jax", "date")},
        # The last of each test set and search.
        "tests": list({tuple(map(row.get, TOLD_APART)): row for row in rows.test}.values()),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The table, in Markdown."""
    columns = ("run", "test set", "beam, length penalty", "score", "parameters", "steps")
    head = f"| {' | '.join((*columns, 'training, minutes', 'device', 'date'))} |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name, found in sorted(results.items()):
        score, text = SHOWN[name.split("-")[0]]
        for test in found["tests"]:
            if score not in test:  # only other scores were asked for
                continue
            cells = [
                f"`{name}`",
                test["name"],
                f"{test['beam']}, {test['length_penalty']:g}",
                text.format(test[score]),
                f"{found['parameters']:,}",
                f"{found['steps']:,}",
                f"{found['minutes']:.0f}",
                found["device"],
                found["date"][:10],
            ]
            lines.append("| " + " | ".join(cells) + " |")
            lines += by_length(name, test) if "by_length" in test else []
    return "\n".join(lines)


def by_length(name: str, test: dict[str, Any]) -> Iterable[str]:
    """A row for each class of source lengths."""
    for row in test["by_length"]:
        end = "and more" if row["to"] is None else f"to {row['to']}"
        yield f"| | {row['from']} {end} words | | BLEU {row['bleu']:.2f} | | | | | |"


def written(page: str, results: dict[str, dict[str, Any]]) -> str:
    """The page with its table made anew.

    Raises:
      InputError: the page has no place for one.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"the page has no {BEGIN} with {END} after it")
    return f"{before}{BEGIN}\n{table(results)}\n{END}{after}"


def main(options: Options) -> None:
    """Keeps the runs' results and writes the table."""
    kept = json.loads(options.results.read_text()) if options.results.exists() else {}
    kept |= {folder.name: record(folder) for folder in options.runs}
    page = written(options.page.read_text(encoding="utf-8"), kept)
    options.results.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    options.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"table.py: {error}")
