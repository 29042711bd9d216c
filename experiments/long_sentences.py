"""Does attention hold up on long sentences, where one fixed vector fails?

    python experiments/long_sentences.py --folder multi30k --model attention
    python experiments/long_sentences.py --folder multi30k --figure

Bahdanau 2015, figure 2, on a corpus of captions: one to six sentences are joined into one, so that
sources reach past 80 words, and all three systems train on the same joined sentences. BLEU is
taken by source length. The second command draws the three curves from what the runs noted.

Files: as for `multi30k.py`. Published (WMT14 English to French): with attention flat at 26 to 27
BLEU up to 60 words, without it falling from 22 at 20 words to 6.5 at 60. Commands, devices,
durations and what was seen stand in `experiments/README.md`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
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
from encdec.data.sources import Pairs, read_pairs
from encdec.evaluation.by_length import LengthBucket
from encdec.plots.attention import save_figure
from encdec.plots.curves import length_figure
from encdec.runs.metrics_log import read_metrics
from encdec.types import InputError

ENDINGS = (".lc.norm.tok.en", ".lc.norm.tok.de")
MOST_JOINED = 6
LENGTH_PENALTY = 1.0
"""The best of 0.6, 1.0 and 1.2 on val for the model with attention, when each number of joined
sentences was as likely; used for all three. With less, a beam prefers a translation that is too
short, now and then an empty one."""
BOUNDS = (10, 20, 30, 40, 50, 60, 70)

MODELS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(
        cell="gru", embed=128, hidden=256, dropout=0.1, context_every_step=True
    ),
    "attention": AttentionConfig(
        cell="gru",
        embed=128,
        hidden=256,
        dropout=0.2,
        attention_type="conditional",
        tie_embeddings=True,
    ),
    "transformer": TransformerConfig(
        layers=4, width=128, feed_forward=256, heads=4, dropout=0.2, norm="pre", tie_embeddings=True
    ),
}


@dataclass(frozen=True)
class Options:
    """Where the corpus is and what to train, or to draw the figure."""

    folder: Path
    """Folder with the corpus."""
    model: Literal["seq2seq", "attention", "transformer"] = "attention"
    """Which system."""
    runs: Path = Path("runs")
    """Folder that the run folders long-MODEL and the joined sentences go into."""
    figure: bool = False
    """Draw the runs' curves to RUNS/long_sentences.png instead of training."""
    max_steps: int = 8000
    """Updates of the parameters."""
    seed: int = 0
    """The one seed."""


def joined(pairs: Pairs, rounds: int, seed: int) -> Pairs:
    """Sentences in random order, one to MOST_JOINED of them in a row made one; `rounds` times.

    Each number of sentences gets as many words as any other.
    """
    rng = np.random.default_rng(seed)
    numbers = np.arange(1, MOST_JOINED + 1)
    chances = 1 / numbers / (1 / numbers).sum()
    made = Pairs([], [])
    for _ in range(rounds):
        order, start = rng.permutation(len(pairs.src)), 0
        while start < len(order):
            taken = order[start : start + int(rng.choice(numbers, p=chances))]
            start += len(taken)
            for side, texts in zip(made, pairs, strict=True):
                side.append(" ".join(texts[i] for i in taken))
    return made


def write_joined(options: Options) -> dict[str, Path]:
    """The joined sentences of each split as a TSV; the same for every system."""
    files = {}
    for split, rounds in (("train", 3), ("val", 1), ("test_2016_flickr", 4)):
        pairs = read_pairs(*([options.folder / (split + end)] for end in ENDINGS))
        made = joined(pairs, rounds, seed=len(split))
        files[split] = options.runs / f"long-{split}.tsv"
        files[split].parent.mkdir(parents=True, exist_ok=True)
        rows = zip(*made, strict=True)
        files[split].write_text("".join(f"{s}\t{t}\n" for s, t in rows), encoding="utf-8")
    return files


def config(options: Options, train: Path, valid: Path) -> RunConfig:
    """The recipe: data and budget are the same for all three systems."""
    return RunConfig(
        MODELS[options.model],
        DataConfig(
            tsv=(str(train.absolute()),),
            valid_tsv=(str(valid.absolute()),),
            sentencepiece_model="bpe",
            vocabulary_size=6000,
            joint_vocabulary=True,
            batch_tokens=2048,
        ),
        TrainingConfig(
            max_steps=options.max_steps,
            learning_rate=2e-3,
            schedule="cosine",
            warmup=400,
            evaluate_every=1000,
            evaluate_sentences=250,
            bleu_tokenizer="none",
        ),
        options.seed,
    )


def draw(options: Options) -> Path:
    """The figure of the last test rows of those of the three runs that were trained."""
    series = {}
    for model in MODELS:
        rows = read_metrics(options.runs / f"long-{model}" / "metrics.jsonl")
        tested = [row for row in rows if row["kind"] == "test" and "by_length" in row]
        if tested:
            series[model] = [LengthBucket.from_summary(row) for row in tested[-1]["by_length"]]
    path = options.runs / "long_sentences.png"
    save_figure(length_figure(series), path)
    return path


def main(options: Options) -> None:
    """Trains, then prints and keeps BLEU by source length; or draws what was kept."""
    if options.figure:
        print(draw(options))
        return
    run = options.runs / f"long-{options.model}"
    files = write_joined(options)
    encdec.train(config(options, files["train"], files["val"]), run=run)
    bounds = [str(bound) for bound in BOUNDS]
    test = ["--tsv", str(files["test_2016_flickr"]), "--metrics", "bleu", "chrf"]
    search = ["--length-penalty", str(LENGTH_PENALTY)]
    evaluate_command([str(run), *test, *search, "--by-length", "--bounds", *bounds])


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"long_sentences.py: {error}")
