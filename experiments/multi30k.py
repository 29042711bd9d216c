"""Do the three models translate as well as the papers report (Multi30k, English to German)?

    python experiments/multi30k.py --folder multi30k --model transformer
    python experiments/multi30k.py --folder multi30k --recipe published \
        --batch-tokens 8192 --max-steps 8000

Files: github.com/multi30k/dataset, data/task1, lower-cased and tokenized: train, val and
test_2016_flickr with the endings `.lc.norm.tok.en` and `.lc.norm.tok.de`. Joint BPE vocabulary of
10,000 tokens; models are chosen on val only; tokenized BLEU of joined words.

Published, test_2016_flickr: 41.02 for the tiny Transformer (Wu 2021; 4 + 4 layers, width 128),
39.00 for a GRU with attention (Caglayan 2020). The second command trains the Transformer as Wu 2021
did: layers with post-norm, a rate of 5e-3 that falls with 1/sqrt(step) after 2,000 steps, and the
mean of the last checkpoints. `experiments/README.md` has the commands, devices,
durations and results. Set GLIBC_TUNABLES=glibc.malloc.hugetlb=1 on a CPU: with huge pages a step
takes 5 % less time.
"""

from dataclasses import dataclass, replace
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
from encdec.data.sources import read_pairs
from encdec.inference.evaluate import log_evaluation
from encdec.types import InputError

ENDINGS = (".lc.norm.tok.en", ".lc.norm.tok.de")

MODELS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(
        cell="gru", embed=128, hidden=256, dropout=0.2, context_every_step=True
    ),
    "attention": AttentionConfig(
        cell="gru",
        embed=128,
        hidden=256,
        dropout=0.3,
        output_dropout=0.4,
        recurrent_dropout=0.2,
        attention_type="conditional",
        tie_embeddings=True,
    ),
    "transformer": TransformerConfig(
        layers=4,
        width=128,
        feed_forward=256,
        heads=4,
        dropout=0.3,
        norm="pre",
        tie_embeddings=True,
    ),
}

BEAM = {"seq2seq": 12, "attention": 12, "transformer": 5}


@dataclass(frozen=True)
class Options:
    """The corpus, and what to train."""

    folder: Path
    """Folder with the corpus."""
    model: Literal["seq2seq", "attention", "transformer"] = "transformer"
    """Which model."""
    recipe: Literal["ours", "published"] = "ours"
    """How the Transformer is trained."""
    run: Path | None = None
    """Run folder; runs/multi30k-MODEL if left out, with the recipe if it is the published one."""
    max_steps: int = 20_000
    """Updates of the parameters."""
    batch_tokens: int = 1024
    """Tokens of the longer side in an update, padding included."""
    seed: int = 0
    """Seed of every random number."""

    def __post_init__(self) -> None:
        if self.recipe == "published" and self.model != "transformer":
            raise InputError(f"recipe = published is for the Transformer, not for {self.model}")


def config(options: Options) -> RunConfig:
    """The recipe: data and budget are the same for all three models."""

    def files(split: str) -> list[tuple[str, ...]]:
        return [(str((options.folder / (split + end)).absolute()),) for end in ENDINGS]

    train, valid = files("train"), files("val")
    model = MODELS[options.model]
    return RunConfig(
        replace(model, norm="post") if options.recipe == "published" else model,
        DataConfig(
            source=train[0],
            target=train[1],
            valid_source=valid[0],
            valid_target=valid[1],
            sentencepiece_model="bpe",
            vocabulary_size=10_000,
            joint_vocabulary=True,
            batch_tokens=options.batch_tokens,
            num_buckets=10,
        ),
        training(options),
        options.seed,
    )


def training(options: Options) -> TrainingConfig:
    """The schedule, and which parameters are kept."""
    common = TrainingConfig(max_steps=options.max_steps, clip_norm=1.0, bleu_tokenizer="none")
    if options.recipe == "published":
        return replace(common, learning_rate=5e-3, warmup=2000, evaluate_every=100, average_last=5)
    return replace(
        common,
        learning_rate=2e-3 if options.model == "transformer" else 1.5e-3,
        schedule="cosine",
        warmup=1000,
        evaluate_every=1000,
        ema_decay=0.999,
    )


def main(options: Options) -> None:
    """Trains, then prints and logs the metrics on val and on test_2016_flickr."""
    name = options.model + ("-published" if options.recipe == "published" else "")
    run = options.run or Path("runs") / f"multi30k-{name}"
    translator = encdec.train(config(options), run=run).translator
    search = encdec.SearchOptions(beam=BEAM[options.model])
    for split in ("val", "test_2016_flickr"):
        pairs = read_pairs(*([options.folder / (split + ending)] for ending in ENDINGS))
        evaluation = encdec.evaluate(translator, pairs, search)
        name = f"{split}.lc.norm.tok"
        print(evaluation.report(name))
        log_evaluation(translator, name, search, evaluation)


if __name__ == "__main__":
    with as_command("multi30k.py"):
        main(tyro.cli(Options, description=__doc__))
