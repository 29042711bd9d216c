"""How is a word pronounced (SIGMORPHON 2020, task 1: grapheme to phoneme)?

    python experiments/g2p.py --folder sigmorphon2020_g2p --language fre

Files: github.com/sigmorphon/2020, task 1: `fre_train.tsv`, `fre_dev.tsv`, `fre_test.tsv` and so on,
a word, a tab and its phones with spaces between. Characters are tokens on one side, phones on the
other. Models of several sizes are trained; the one with the fewest wrong words on dev is scored
on test. Each is one model, not an ensemble.

Published word error rates (Gorman 2020), French, Hungarian, Vietnamese: LSTM with attention 6.22,
5.33, 4.67, mean 5.41; Transformer 6.89, 5.33, 7.56. Commands, devices, durations and what was seen
stand in `experiments/README.md`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

import encdec
from encdec.cli.evaluate import run as evaluate_command
from encdec.config import (
    AttentionConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from encdec.data.sources import read_pairs
from encdec.types import InputError

SIZES: dict[str, ModelConfig] = {
    "lstm": AttentionConfig(cell="lstm", embed=128, hidden=256, dropout=0.4),
    "conditional": AttentionConfig(
        cell="gru", embed=128, hidden=256, dropout=0.4, attention_type="conditional"
    ),
}

BEAM = 5


@dataclass(frozen=True)
class Options:
    """Where the words are and what to train."""

    folder: Path
    """Folder with the three files of each language."""
    language: Literal["fre", "hun", "vie"] = "fre"
    """Which language."""
    sizes: tuple[Literal["lstm", "conditional"], ...] = tuple(SIZES)  # type: ignore[assignment]
    """Models to choose from."""
    runs: Path = Path("runs")
    """Folder that the run folders g2p-LANGUAGE-SIZE go into."""
    max_steps: int = 3000
    """Updates of each model's parameters."""
    seed: int = 0
    """The one seed."""


def config(options: Options, size: str) -> RunConfig:
    """The recipe: the same for every language and size."""
    train, dev = (
        (str((options.folder / f"{options.language}_{split}.tsv").absolute()),)
        for split in ("train", "dev")
    )
    return RunConfig(
        SIZES[size],
        DataConfig(
            tsv=train,
            valid_tsv=dev,
            vocabulary="chars",
            target_vocabulary="words",
            batch_tokens=768,
            num_buckets=6,
        ),
        TrainingConfig(
            max_steps=options.max_steps,
            learning_rate=2e-3,
            schedule="cosine",
            warmup=200,
            evaluate_every=250,
            ema_decay=0.99,
            best_metric="exact_match",
        ),
        options.seed,
    )


def main(options: Options) -> None:
    """Trains each size, chooses on dev, then prints and keeps the scores on test."""
    search = encdec.SearchOptions(beam=BEAM)
    dev = read_pairs(tsv=[options.folder / f"{options.language}_dev.tsv"])
    wrong: dict[Path, float] = {}
    for size in options.sizes:
        run = options.runs / f"g2p-{options.language}-{size}"
        encdec.train(config(options, size), run=run)
        found = encdec.evaluate(encdec.load(run), dev, search, metrics=["sequence_error_rate"])
        wrong[run] = found.metrics["sequence_error_rate"]
        print(f"{run}: word error rate on dev {wrong[run]:.2f}")
    chosen = min(wrong, key=lambda run: wrong[run])
    test = options.folder / f"{options.language}_test.tsv"
    evaluate_command([str(chosen), "--tsv", str(test), "--beam", str(BEAM)])


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"g2p.py: {error}")
