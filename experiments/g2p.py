"""How is a word pronounced (SIGMORPHON 2020, task 1: grapheme to phoneme)?

    python experiments/g2p.py --folder sigmorphon2020_g2p --language fre

Files: github.com/sigmorphon/2020, task 1: `fre_train.tsv`, `fre_dev.tsv`, `fre_test.tsv`, and the
same for `bul`, `geo`, `hin`, `hun`, `kor` and `vie`, or for any other language: a word, a tab and
its phones, separated by spaces, in each line. Source tokens are characters, target tokens are
phones. Accents are read apart from their letters, and the letters of a Hangul syllable from each
other: a syllable is one of thousands, most of them rare. The recipe is the same for all languages;
dev only chooses the checkpoint. It is a single model, not an ensemble.

Published word error rates (Gorman 2020) of the LSTM with attention: bul 31.11, fre 6.22, geo 26.44,
hin 6.67, hun 5.33, kor 46.89, vie 4.67, mean 18.19. `experiments/README.md` has the commands,
devices, durations and results.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

import encdec
from encdec.cli.main import as_command
from encdec.config import (
    AttentionConfig,
    DataConfig,
    RunConfig,
    TrainingConfig,
    TrainingDeviceConfig,
)
from encdec.data.sources import read_pairs
from encdec.inference.evaluate import log_evaluation
from encdec.types import InputError

MODEL = AttentionConfig(
    cell="gru", embed=128, hidden=256, dropout=0.4, attention_type="conditional"
)

BEAM = 5


@dataclass(frozen=True)
class Options:
    """The corpus, and what to train."""

    folder: Path
    """Folder with the three files of each language."""
    language: str = "fre"
    """Which language: the files are LANGUAGE_train.tsv, LANGUAGE_dev.tsv and LANGUAGE_test.tsv."""
    runs: Path = Path("runs")
    """Folder for the run folder g2p-LANGUAGE-seedSEED."""
    max_steps: int = 3000
    """Updates of the parameters."""
    seed: int = 0
    """Seed of every random number."""


def config(options: Options) -> RunConfig:
    """The recipe: the same for every language."""
    train, dev = (
        (str((options.folder / f"{options.language}_{split}.tsv").absolute()),)
        for split in ("train", "dev")
    )
    return RunConfig(
        MODEL,
        DataConfig(
            tsv=train,
            valid_tsv=dev,
            vocabulary="chars",
            target_vocabulary="words",
            normalization="nfd",
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
    """Trains, then prints and logs the metrics on test.

    Raises:
      InputError: a file is missing; the error names the languages that the folder has.
    """
    _check_language(options)
    search = encdec.SearchOptions(beam=BEAM)
    test = read_pairs(tsv=[options.folder / f"{options.language}_test.tsv"])
    run = options.runs / f"g2p-{options.language}-seed{options.seed}"
    # So small a model gains nothing from faster products, and is the same on every device.
    devices = TrainingDeviceConfig(precision="float32")
    translator = encdec.train(config(options), run=run, devices=devices).translator
    name = f"{options.language}_test"
    errors = ["sequence_error_rate", "token_error_rate"]
    evaluation = encdec.evaluate(translator, test, search, metrics=errors)
    print(f"{run}\n{evaluation.report(name)}")
    log_evaluation(translator, name, search, evaluation)


if __name__ == "__main__":
    with as_command("g2p.py"):
        main(tyro.cli(Options, description=__doc__))
