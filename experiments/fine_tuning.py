"""Does a run that begins from a related one need fewer steps than one that begins from nothing?

    python experiments/fine_tuning.py --runs runs/fine-tuning

Question: the locales of the dates corpus are split in two halves that take turns in its list, so
that each has several scripts. A GRU with attention learns one half in 300 steps. Then the other
half is learnt in 100 steps: from random parameters, from the first run, and from it by low-rank
additions of rank 8 only. Bytes are the tokens, so that one vocabulary serves both halves. The rate
is constant: a schedule would end at another step in each run.

Expected: the loss on held-out days of the second half is far lower from the first run than from
random parameters, and in between with low-rank additions. Figures, device and duration stand in
`experiments/README.md`.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import tyro

import encdec
from encdec.cli.main import as_command
from encdec.config import (
    AttentionConfig,
    DataConfig,
    FineTuningConfig,
    RunConfig,
    TrainingConfig,
)
from encdec.data.dates import FIRST_DAY, LAST_DAY, LOCALES, format_day, formats
from encdec.files import cache_folder
from encdec.parallel.devices import keep_compiled_programs

HALVES = LOCALES[::2], LOCALES[1::2]


@dataclass(frozen=True)
class Options:
    """Where runs go and how long they are."""

    runs: Path = Path("runs/fine-tuning")
    """Folder that the four run folders go into."""
    steps: int = 300
    """Updates on the first half; the second half gets a third of them."""
    seed: int = 0
    """The one seed."""


def corpus(locales: tuple[str, ...], seed: int) -> encdec.Corpus:
    """20,000 dates to train on, 500 to validate on and 1,000 held out, of different days."""
    ways = [how for how in formats() if str(how.locale) in locales]
    rng = np.random.default_rng(seed)
    days = rng.permutation((LAST_DAY - FIRST_DAY).days + 1)
    held_out, valid, train = np.split(days, [1000, 1500])

    def written(numbers: np.ndarray) -> list[tuple[str, str]]:
        dates: list[date] = [FIRST_DAY + timedelta(int(n)) for n in numbers]
        drawn = rng.integers(len(ways), size=len(dates))
        return [
            (format_day(day, ways[d]), day.isoformat()) for day, d in zip(dates, drawn, strict=True)
        ]

    return encdec.Corpus(written(rng.choice(train, 20_000)), written(valid), written(held_out))


def config(steps: int, seed: int) -> RunConfig:
    """Settings of all runs."""
    return RunConfig(
        AttentionConfig(embed=32, hidden=64, dropout=0.0),
        DataConfig(
            vocabulary="bytes",
            max_source_length=64,
            max_target_length=16,
            batch_tokens=2048,
            num_buckets=1,
        ),
        TrainingConfig(
            max_steps=steps,
            learning_rate=2e-3,
            schedule="constant",
            warmup=50,
            label_smoothing=0.0,
            evaluate_every=steps,
            best_metric="exact_match",
            evaluate_sentences=500,
        ),
        seed,
    )


def main(options: Options) -> None:
    """Trains four runs and prints exact match on the held-out dates of the second half."""
    first, second = (corpus(half, options.seed + i) for i, half in enumerate(HALVES))
    short = config(options.steps // 3, options.seed)
    low_rank = replace(short, fine_tuning=FineTuningConfig(lora_rank=8))
    keep_compiled_programs(cache_folder())
    origin = options.runs / "first-half"
    encdec.train(config(options.steps, options.seed), first, run=origin)
    pairs = second.held_out or []
    rows = {"first half only": encdec.load(origin)}
    for name, settings, init in (
        ("random", short, None),
        ("fine-tuned", short, origin),
        ("low-rank", low_rank, origin),
    ):
        run = options.runs / name
        rows[name] = encdec.train(settings, second, run=run, init=init).translator
    for name, translator in rows.items():
        values = encdec.evaluate(translator, pairs, encdec.SearchOptions(beam=1)).values
        print(f"{name:16}  exact match {values['exact_match']:.4f}  loss {values['loss']:.4f}")


if __name__ == "__main__":
    with as_command("fine_tuning.py"):
        main(tyro.cli(Options, description=__doc__))
