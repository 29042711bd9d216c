"""Writes the tables of results in `experiments/README.md` and `README.md` from run folders.

    python experiments/table.py runs/{dates,scan,multi30k,long,g2p}-*/

The `metrics.jsonl` of a run says where, when and for how long it was trained, and holds its test
metrics. This script copies these from each named folder to `experiments/results.json`, where they
replace an older row of the same run, and writes both tables from that file. Without a folder it
only writes the tables. Runs whose names differ only in their end, `-seed0`, are one row: the mean
of the score, and its least and greatest value.
"""

import json
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from encdec.cli.main import as_command
from encdec.runs import run as runs
from encdec.runs.metrics_log import metric_rows
from encdec.runs.parameters import parameter_count
from encdec.types import InputError

HERE = Path(__file__).parent
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

SHOWN = {
    "dates": ("exact_match", "exact match {:.4f}"),
    "scan": ("exact_match", "exact match {:.4f}"),
    "multi30k": ("bleu", "BLEU {:.2f}"),
    "long": ("bleu", "BLEU {:.2f}"),
    "g2p": ("sequence_error_rate", "{:.2f} % words wrong"),
}
"""For each experiment, the metric in its table and the format of the value."""

TEST_KEY = ("name", "beam", "length_penalty", "detokenize", "bleu_signature")
"""The fields in which two test rows of a run differ; of equal rows the last is kept."""

Results = dict[str, dict[str, Any]]
"""What is kept of each run, by the name of its folder."""


class Question(NamedTuple):
    """A row of the table in `README.md`.

    Attributes:
      text, command: what is asked, and the command that answers it.
      systems: the runs without their seeds, by what the table calls them.
      test: the name of the test set; None for the only one.
      score: the format of a score.
      published: the published figures.
    """

    text: str
    command: str
    systems: dict[str, str]
    test: str | None
    score: str
    published: str


def _three(experiment: str) -> dict[str, str]:
    names = {"seq2seq": "seq2seq", "attention": "attention", "Transformer": "transformer"}
    return {shown: f"{experiment}-{name}" for shown, name in names.items()}


QUESTIONS = (
    Question(
        "dates: exact match on 2,000 days that were never trained on",
        "encdec train dates --model M",
        _three("dates"),
        None,
        "{:.4f}",
        "",
    ),
    Question(
        "SCAN, simple split: exact match on 4,182 commands",
        "experiments/scan.py",
        _three("scan-simple"),
        None,
        "{:.4f}",
        "LSTM 0.998",
    ),
    Question(
        "SCAN, commands longer than any in training: exact match",
        "experiments/scan.py --split length",
        _three("scan-length"),
        None,
        "{:.3f}",
        "LSTM 0.138",
    ),
    Question(
        "Multi30k English to German, `test_2016_flickr`, tokenized BLEU",
        "experiments/multi30k.py",
        {
            "Transformer": "multi30k-transformer-2048",
            "Transformer with the published schedule": "multi30k-transformer-published",
            "GRU with attention": "multi30k-attention",
            "seq2seq (6,000 of 20,000 steps)": "multi30k-seq2seq",
        },
        "test_2016_flickr.lc.norm.tok",
        "{:.1f}",
        "Transformer 41.0, GRU with attention 39.0",
    ),
    Question(
        "pronunciation of words: percentage of wrong words",
        "experiments/g2p.py",
        {code: f"g2p-{code}" for code in ("bul", "fre", "geo", "hin", "hun", "kor", "vie")},
        None,
        "{:.2f}",
        "LSTM: bul 31.11, fre 6.22, geo 26.44, hin 6.67, hun 5.33, kor 46.89, vie 4.67, mean 18.19",
    ),
)


@dataclass(frozen=True)
class Options:
    """The sources of the tables."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = field(default=())
    """Run folders whose names begin with the name of their experiment: multi30k-attention."""
    results: Path = HERE / "results.json"
    """JSON file with the results of all runs."""
    page: Path = HERE / "README.md"
    """The page with the table of all runs."""
    summary: Path = HERE.parent / "README.md"
    """The page with the table of the questions."""


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


def by_seeds(results: Results) -> dict[str, list[dict[str, Any]]]:
    """The results of runs that differ only in their seed, by their name without it."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, result in sorted(results.items()):
        groups.setdefault(re.sub(r"-seed\d+$", "", name), []).append(result)
    return groups


def score(text: str, values: list[float]) -> str:
    """The mean of the values, and the least and the greatest where there are several."""
    shown = text.format(statistics.mean(values))
    if len(values) == 1:
        return shown
    number = re.search(r"{.*?}", text)
    assert number is not None
    least, most = (number[0].format(extreme(values)) for extreme in (min, max))
    return f"{shown} ({least} to {most})"


def table(results: Results) -> str:
    """The table of all runs, in Markdown."""
    columns = ("run", "seeds", "test set", "beam, length penalty", "score", "parameters", "steps")
    head = f"| {' | '.join((*columns, 'training, minutes', 'device', 'date'))} |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name, group in by_seeds(results).items():
        metric, text = SHOWN[name.split("-")[0]]
        tests: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for test in (test for result in group for test in result["tests"] if metric in test):
            tests.setdefault(tuple(map(test.get, TEST_KEY)), []).append(test)
        for same in tests.values():
            first = same[0]
            cells = [
                f"`{name}`",
                str(len(same)),
                first["name"],
                f"{first['beam']}, {first['length_penalty']:g}",
                score(text, [test[metric] for test in same]),
                f"{group[0]['parameters']:,}",
                f"{group[0]['steps']:,}",
                f"{statistics.mean(result['minutes'] for result in group):.0f}",
                *where_and_when(group),
            ]
            lines.append("| " + " | ".join(cells) + " |")
            lines += by_length(first) if "by_length" in first else []
    return "\n".join(lines)


def where_and_when(group: list[dict[str, Any]]) -> tuple[str, str]:
    """The devices and the dates of runs."""
    devices = sorted({result["device"] for result in group})
    dates = sorted({result["date"][:10] for result in group})
    return ", ".join(devices), dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def by_length(test: dict[str, Any]) -> Iterable[str]:
    """A row for each range of source lengths."""
    for row in test["by_length"]:
        end = "and more" if row["to"] is None else f"to {row['to']}"
        yield f"| | | {row['from']} {end} words | | BLEU {row['bleu']:.2f} | | | | | |"


def summary(results: Results) -> str:
    """The table of the questions, in Markdown; systems that were not measured are left out."""
    lines = ["| question | command | result | seeds | published | measured |", "|---" * 6 + "|"]
    groups = by_seeds(results)
    for question in QUESTIONS:
        there = {shown: name for shown, name in question.systems.items() if name in groups}
        if not there:
            continue
        metric, _ = SHOWN[next(iter(there.values())).split("-")[0]]
        values = {
            shown: [_test(result, question.test)[metric] for result in groups[name]]
            for shown, name in there.items()
        }
        cells = [f"{shown} {score(question.score, found)}" for shown, found in values.items()]
        if len(values) > 3:  # one question of many sets
            mean = statistics.mean(statistics.mean(found) for found in values.values())
            cells.append(f"mean {question.score.format(mean)}")
        members = [result for name in there.values() for result in groups[name]]
        seeds = sorted({len(found) for found in values.values()})
        counts = map(str, seeds if len(seeds) < 3 else (seeds[0], seeds[-1]))
        devices, dates = where_and_when(members)
        lines.append(
            f"| {question.text} | `{question.command}` | {', '.join(cells)} | "
            f"{' to '.join(counts)} | {question.published} | {devices}, {dates} |"
        )
    return "\n".join(lines)


def _test(result: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The first test row of a test set: that of the search that was fixed before testing."""
    found: dict[str, Any] = next(
        test for test in result["tests"] if name is None or test["name"] == name
    )
    return found


def written(page: str, new: str) -> str:
    """The page with a new table.

    Raises:
      InputError: the page does not mark the place of the table.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"the page has no {BEGIN} with {END} after it")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def main(options: Options) -> None:
    """Adds the results of the runs and writes the tables."""
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    results |= {folder.name: record(folder) for folder in options.runs}
    pages = {
        path: written(path.read_text(encoding="utf-8"), make(results))
        for path, make in ((options.page, table), (options.summary, summary))
    }
    options.results.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with as_command("table.py"):
        main(tyro.cli(Options, description=__doc__))
