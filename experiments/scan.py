"""Does each model learn the commands of SCAN (Lake and Baroni 2018), and longer ones?

    python experiments/scan.py --folder scan --split simple --model attention
    python experiments/scan.py --folder scan --split length --model attention

Files: github.com/brendenlake/SCAN: `tasks_train_simple.txt`, `tasks_test_simple.txt`, and those of
length_split, where training has at most 22 actions and the test 24 to 48. Published for LSTMs:
99.8 % exact match on the simple split, 13.8 % on the length split.

`experiments/README.md` has the commands, devices, durations and results.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

import encdec
from encdec.cli.main import as_command
from encdec.config import (
    AttentionConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.data.sources import Pairs, read_lines
from encdec.inference.evaluate import log_evaluation
from encdec.types import InputError

MODELS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(cell="lstm", layers=2, embed=128, hidden=200, dropout=0.1),
    "attention": AttentionConfig(cell="gru", embed=64, hidden=128, dropout=0.1),
    "transformer": TransformerConfig(
        layers=2, width=128, feed_forward=256, heads=4, dropout=0.1, norm="pre"
    ),
}


@dataclass(frozen=True)
class Options:
    """The corpus, and what to train."""

    folder: Path
    """Folder with the corpus: commands and their actions, `IN: ... OUT: ...`."""
    split: Literal["simple", "length"] = "simple"
    """simple: training and test commands are drawn alike; length: the test commands are longer."""
    model: Literal["seq2seq", "attention", "transformer"] = "transformer"
    """Which model."""
    runs: Path = Path("runs")
    """Folder for the run folder scan-SPLIT-MODEL-seedSEED."""
    max_steps: int = 3000
    """Updates of the parameters."""
    seed: int = 0
    """Seed of every random number."""


def read_scan(path: Path) -> Pairs:
    """Commands and their action sequences.

    Raises:
      InputError: a line is not `IN: ... OUT: ...`.
    """
    pairs = Pairs([], [])
    for number, line in enumerate(read_lines(path), 1):
        command, separator, actions = line.removeprefix("IN: ").partition(" OUT: ")
        if not separator:
            raise InputError(f"{path}, line {number}: not of the form `IN: ... OUT: ...`")
        pairs.src.append(command)
        pairs.tgt.append(actions)
    return pairs


def config(options: Options) -> RunConfig:
    """The recipe: tokens are words; the Transformer has a lower rate."""
    return RunConfig(
        MODELS[options.model],
        DataConfig(holdout=500, vocabulary="words", batch_tokens=4096, num_buckets=4),
        TrainingConfig(
            max_steps=options.max_steps,
            learning_rate=2e-3 if options.model != "transformer" else 1e-3,
            schedule="cosine",
            warmup=200,
            label_smoothing=0.0,
            evaluate_every=max(1, options.max_steps // 4),
            best_metric="exact_match",
            evaluate_sentences=500,
        ),
        options.seed,
    )


def main(options: Options) -> None:
    """Trains, then prints and logs the fraction of test commands with exactly the right actions."""
    train, test = (
        read_scan(options.folder / f"tasks_{part}_{options.split}.txt")
        for part in ("train", "test")
    )
    run = options.runs / f"scan-{options.split}-{options.model}-seed{options.seed}"
    translator = encdec.train(config(options), train, run=run).translator
    # The right actions can be longer than all in training: 48 of them for 8 words.
    search = encdec.SearchOptions(beam=1, max_ratio=8)
    evaluation = encdec.evaluate(translator, test, search, metrics=["exact_match"])
    name = f"scan-{options.split}-test"
    print(evaluation.report(name))
    log_evaluation(translator, name, search, evaluation)


if __name__ == "__main__":
    with as_command("scan.py"):
        main(tyro.cli(Options, description=__doc__))
