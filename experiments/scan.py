"""Does each system learn the commands of SCAN (Lake and Baroni 2018), and longer ones?

    python experiments/scan.py --folder scan --split simple --model attention
    python experiments/scan.py --folder scan --split length --model attention

Files: github.com/brendenlake/SCAN: `tasks_train_simple.txt`, `tasks_test_simple.txt`, and those of
length_split, where training has at most 22 actions and the test 24 to 48. Published for LSTMs:
99.8 % exact match on the simple split, 13.8 % on the length split.

Commands, devices, durations and what was seen stand in `experiments/README.md`.
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
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.data.sources import Pairs, read_lines
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
    """Where the corpus is and what to train."""

    folder: Path
    """Folder with the corpus: commands and their actions, `IN: ... OUT: ...`."""
    split: Literal["simple", "length"] = "simple"
    """Training and test commands drawn alike, or tested on longer ones."""
    model: Literal["seq2seq", "attention", "transformer"] = "transformer"
    """Which system."""
    runs: Path = Path("runs")
    """Folder that the run folder scan-SPLIT-MODEL goes into."""
    max_steps: int = 3000
    """Updates of the parameters."""
    seed: int = 0
    """The one seed."""


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


def write_tsv(options: Options, part: str) -> Path:
    """Commands and actions with a tab between."""
    pairs = read_scan(options.folder / f"tasks_{part}_{options.split}.txt")
    tsv = options.runs / f"scan-{options.split}-{part}.tsv"
    tsv.parent.mkdir(parents=True, exist_ok=True)
    tsv.write_text("".join(f"{s}\t{t}\n" for s, t in zip(*pairs, strict=True)), encoding="utf-8")
    return tsv


def config(options: Options, tsv: Path) -> RunConfig:
    """The recipe: words as tokens, one rate for all three systems."""
    return RunConfig(
        MODELS[options.model],
        DataConfig(
            tsv=(str(tsv.absolute()),),
            holdout=500,
            vocabulary="words",
            batch_tokens=4096,
            num_buckets=4,
        ),
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
    """Trains, then prints and keeps the share of test commands whose actions are all right."""
    train, test = (write_tsv(options, part) for part in ("train", "test"))
    run = options.runs / f"scan-{options.split}-{options.model}"
    encdec.train(config(options, train), run=run)
    # Longer than anything in training may be right: 48 actions for 8 words.
    search = ["--beam", "1", "--max-ratio", "8"]
    evaluate_command([str(run), "--tsv", str(test), "--metrics", "exact_match", *search])


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"scan.py: {error}")
