"""What does a vocabulary shortlist save, and what does it cost?

    encdec shortlist runs/en-de --source multi30k/train.en --target multi30k/train.de --out lex.gz
    python -m experiments.shortlist runs/en-de --table lex.gz \\
        --source multi30k/test_2016_flickr.en --target multi30k/test_2016_flickr.de

The same sentences are translated with and without the shortlist, in turn, after one call of each
that compiles. Printed are the median seconds of CPU time (user and system), so that other work on
the machine matters less than it does for the time by the clock; the tokens that were written; and
BLEU.

It takes five minutes on two CPU cores, most of them for compiling. Results, with devices and dates,
stand in `experiments/README.md`.
"""

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import sacrebleu
import tyro

import encdec
from encdec.cli.main import as_command
from encdec.data.shortlist import BEST
from encdec.files import cache_folder
from encdec.parallel.devices import core_count, keep_compiled_programs


@dataclass(frozen=True)
class Options:
    """The run, its table, and the test set."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    table: Path
    """The table of the shortlist."""
    source: Path
    """A sentence in each line."""
    target: Path
    """Their translations."""
    best: int = BEST
    """The most target tokens that a source token proposes."""
    beams: tuple[int, ...] = (1, 5)
    """Beam widths; 1 is greedy search."""
    repeats: int = 5
    """Timed calls."""


def cpu_seconds() -> float:
    """Of this process so far."""
    times = os.times()
    return times.user + times.system


def main(options: Options) -> None:
    """Prints a line for each beam width, with and without the shortlist."""
    keep_compiled_programs(cache_folder())
    texts, references = (
        path.read_text(encoding="utf-8").splitlines() for path in (options.source, options.target)
    )
    print(f"{len(texts)} sentences, {core_count()} cores")
    translator = encdec.load(options.run)
    translators = {
        "without": translator,
        "with": translator.with_shortlist(options.table, options.best),
    }
    for beam in options.beams:
        search = encdec.SearchOptions(beam=beam)
        found = {name: one.translate(texts, search) for name, one in translators.items()}
        seconds: dict[str, list[float]] = {name: [] for name in translators}
        for _ in range(options.repeats):
            for name, one in translators.items():
                start = cpu_seconds()
                one.translate(texts, search)
                seconds[name].append(cpu_seconds() - start)
        for name, translations in found.items():
            bleu = sacrebleu.corpus_bleu([one.text for one in translations], [references]).score
            tokens = sum(len(one.tgt_ids) for one in translations)
            print(
                f"beam {beam}, {name}: {statistics.median(seconds[name]):.2f} s of CPU time, "
                f"{tokens} tokens, BLEU {bleu:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    with as_command("shortlist.py", trains=False):
        main(tyro.cli(Options, description=__doc__))
