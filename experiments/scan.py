"""Does each system learn the commands of SCAN (Lake and Baroni 2018), simple split?

    python experiments/scan.py --train tasks_train_simple.txt --test tasks_test_simple.txt \
        --model attention

Files: github.com/brendenlake/SCAN, folder simple_split. Published for an LSTM: 99.8 % exact match.

Device: 2 cores of an AMD EPYC, 2026-11-24, with tests running beside. Duration in minutes: seq2seq
14, attention 10, transformer 10.
Seen, exact match on the 4,182 test commands: seq2seq 0.9998, attention 1.0000, transformer 0.9967.
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
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.data.sources import Pairs, read_lines
from encdec.fitting import fit
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

    train: Path
    """Commands to train on, `IN: ... OUT: ...`."""
    test: Path
    """Commands to be scored on."""
    model: Literal["seq2seq", "attention", "transformer"] = "transformer"
    """Which system."""
    run: Path | None = None
    """Run folder; runs/scan-MODEL if left out."""
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


def config(options: Options, tsv: Path) -> RunConfig:
    """The recipe: words as tokens, one rate for all three systems."""
    return RunConfig(
        MODELS[options.model],
        DataConfig(
            tsv=(str(tsv.absolute()),),
            held_out=500,
            vocabulary="words",
            batch_tokens=4096,
            shapes=4,
        ),
        TrainingConfig(
            max_steps=options.max_steps,
            learning_rate=2e-3 if options.model != "transformer" else 1e-3,
            schedule="cosine",
            warmup=200,
            label_smoothing=0.0,
            evaluate_every=max(1, options.max_steps // 4),
            select="exact_match",
            evaluate_sentences=500,
        ),
        options.seed,
    )


def main(options: Options) -> None:
    """Trains, then prints the share of test commands whose actions are all right."""
    run = options.run or Path("runs") / f"scan-{options.model}"
    train, test = read_scan(options.train), read_scan(options.test)
    tsv = run.with_name(run.name + ".tsv")
    tsv.parent.mkdir(parents=True, exist_ok=True)
    tsv.write_text("".join(f"{s}\t{t}\n" for s, t in zip(*train, strict=True)), encoding="utf-8")
    fit(config(options, tsv), run)
    scores = encdec.load(run).evaluate(test, encdec.SearchOptions(beam=1)).scores
    print(f"{options.model}: exact match {scores.exact_match:.4f} on {scores.sentences} commands")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"scan.py: {error}")
