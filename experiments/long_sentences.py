"""Does attention hold up on long sentences, where a single fixed vector fails?

    python experiments/long_sentences.py --folder multi30k --model attention
    python experiments/long_sentences.py --folder multi30k --figure

Bahdanau 2015, figure 2, on a corpus of captions: one to six sentences are joined into one, so that
sources reach past 80 words, and all three models train on the same joined sentences. BLEU is
computed by source length. The second command draws the three curves from what the runs logged.

Files: as for `multi30k.py`. Published (WMT14 English to French): with attention flat at 26 to 27
BLEU up to 60 words, without it falling from 22 at 20 words to 6.5 at 60. `experiments/README.md`
has the commands, devices, durations and results.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
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
from encdec.data.sources import Pairs, read_pairs
from encdec.evaluation import tables
from encdec.evaluation.by_length import LengthBucket, metrics_by_length, word_counts
from encdec.evaluation.options import metric_options
from encdec.inference.evaluate import log_evaluation
from encdec.plots.attention import save_figure
from encdec.plots.curves import length_figure
from encdec.runs.metrics_log import read_metrics

ENDINGS = (".lc.norm.tok.en", ".lc.norm.tok.de")
MOST_JOINED = 6
LENGTH_PENALTY = 1.0
"""The best of 0.6, 1.0 and 1.2 on val for the model with attention, when each number of joined
sentences was as likely; used for all three. With a lower one, a beam prefers translations that are
too short, sometimes empty ones."""
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
    """The corpus, and what to train or draw."""

    folder: Path
    """Folder with the corpus."""
    model: Literal["seq2seq", "attention", "transformer"] = "attention"
    """Which model."""
    runs: Path = Path("runs")
    """Folder for the run folders long-MODEL."""
    figure: bool = False
    """Draw the runs' curves to RUNS/long_sentences.png instead of training."""
    max_steps: int = 8000
    """Updates of the parameters."""
    seed: int = 0
    """Seed of every random number."""


def joined(pairs: Pairs, rounds: int, seed: int) -> Pairs:
    """Joins sentences in random order, one to MOST_JOINED at a time; `rounds` times.

    All numbers of joined sentences get about as many words in total.
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


def read_joined(options: Options, split: str, rounds: int) -> Pairs:
    """The joined sentences of a split; the same for every model."""
    pairs = read_pairs(*([options.folder / (split + ending)] for ending in ENDINGS))
    return joined(pairs, rounds, seed=len(split))


def config(options: Options) -> RunConfig:
    """The recipe: data and budget are the same for all three models."""
    return RunConfig(
        MODELS[options.model],
        DataConfig(
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
    """Draws the last test rows of the runs that there are."""
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
    """Trains, then prints and logs BLEU by source length; or draws what was logged."""
    if options.figure:
        print(draw(options))
        return
    run = options.runs / f"long-{options.model}"
    train, valid, test = (
        read_joined(options, split, rounds)
        for split, rounds in (("train", 3), ("val", 1), ("test_2016_flickr", 4))
    )
    translator = encdec.train(config(options), encdec.Corpus(train, valid), run=run).translator
    search = encdec.SearchOptions(length_penalty=LENGTH_PENALTY)
    names = ["bleu", "chrf"]
    evaluation = encdec.evaluate(translator, test, search, metrics=names)
    buckets = metrics_by_length(
        evaluation.hypotheses,
        [test.tgt],
        word_counts(test.src),
        BOUNDS,
        metric_options(translator.run.config),
        names,
    )
    name = "long-test_2016_flickr"
    print(f"{evaluation.report(name)}\n\n{tables.lengths_text(buckets)}")
    by_length = [bucket.summary() for bucket in buckets]
    log_evaluation(translator, name, search, evaluation, by_length=by_length)


if __name__ == "__main__":
    with as_command("long_sentences.py"):
        main(tyro.cli(Options, description=__doc__))
