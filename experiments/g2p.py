"""How is a word pronounced (SIGMORPHON 2020, task 1: grapheme to phoneme)?

    python experiments/g2p.py --folder sigmorphon2020_g2p --language fre

Files: github.com/sigmorphon/2020, task 1: `fre_train.tsv`, `fre_dev.tsv`, `fre_test.tsv`, and the
same for `bul`, `geo`, `hin`, `hun`, `kor` and `vie`, or for any other language: a word, a tab and
its phones, separated by spaces, in each line. Source tokens are characters, target tokens are
phones. Models of several sizes are trained; the one with the fewest wrong words on dev is evaluated
on test. It is a single model, not an ensemble.

Published word error rates (Gorman 2020), French, Hungarian, Vietnamese: LSTM with attention 6.22,
5.33, 4.67, mean 5.41; Transformer 6.89, 5.33, 7.56. `experiments/README.md` has the commands,
devices, durations and results.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

import encdec
from encdec.config import (
    AttentionConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from encdec.data.sources import read_pairs
from encdec.inference.evaluate import log_evaluation
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
    """The corpus, and what to train."""

    folder: Path
    """Folder with the three files of each language."""
    language: str = "fre"
    """Which language: the files are LANGUAGE_train.tsv, LANGUAGE_dev.tsv and LANGUAGE_test.tsv."""
    sizes: tuple[Literal["lstm", "conditional"], ...] = tuple(SIZES)  # type: ignore[assignment]
    """Models to choose from."""
    runs: Path = Path("runs")
    """Folder for the run folders g2p-LANGUAGE-SIZE."""
    max_steps: int = 3000
    """Updates of each model's parameters."""
    seed: int = 0
    """Seed of every random number."""


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


def _check_language(options: Options) -> None:
    """Raises InputError unless the folder has all files of the language."""
    suffix = "_train.tsv"
    there = sorted(file.name.removesuffix(suffix) for file in options.folder.glob(f"*{suffix}"))
    for split in ("train", "dev", "test"):
        path = options.folder / f"{options.language}_{split}.tsv"
        if not path.is_file():
            has = f"{options.folder} has files of {', '.join(there) or 'no language'}"
            raise InputError(f"{path} is not there ({has})")


def main(options: Options) -> None:
    """Trains each size, chooses on dev, then prints and logs the metrics on test.

    Raises:
      InputError: a file is missing; the error names the languages that the folder has.
    """
    _check_language(options)
    search = encdec.SearchOptions(beam=BEAM)
    dev, test = (
        read_pairs(tsv=[options.folder / f"{options.language}_{split}.tsv"])
        for split in ("dev", "test")
    )
    error_rates: dict[str, float] = {}
    translators = {}
    for size in options.sizes:
        run = options.runs / f"g2p-{options.language}-{size}"
        translators[size] = encdec.train(config(options, size), run=run).translator
        evaluation = encdec.evaluate(
            translators[size], dev, search, metrics=["sequence_error_rate"]
        )
        error_rates[size] = evaluation.values["sequence_error_rate"]
        print(f"{run}: word error rate on dev {error_rates[size]:.2f}")
    best = translators[min(error_rates, key=lambda size: error_rates[size])]
    name = f"{options.language}_test"
    errors = ["sequence_error_rate", "token_error_rate"]
    evaluation = encdec.evaluate(best, test, search, metrics=errors)
    print(f"{best.run.path}\n{evaluation.report(name)}")
    log_evaluation(best, name, search, evaluation)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"g2p.py: {error}")
