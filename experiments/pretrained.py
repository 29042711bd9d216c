"""Does a model that others trained translate better once it is fine-tuned on a person's sentences?

    python experiments/pretrained.py --model opus-mt-en-de --train mine.tsv --test test.tsv

Files: a folder as the hub library saves it (or a name on the hub), and tab-separated pairs to train
and to test on, source and target in each line. The model is imported, translates the test set, is
fine-tuned on the pairs, whole and by low-rank additions of rank 8, and translates the test set
again. For comparison a model of the same sizes and tokenizer begins from random parameters and is
trained for the same steps. Each is compared with the imported model by paired bootstrap resampling.

Expected: both ways of fine-tuning beat the model that begins from nothing. Figures, device and
duration stand in `experiments/README.md`.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro

import encdec
from encdec.cli.main import as_command
from encdec.config import FineTuningConfig, RunConfig
from encdec.data.sources import Pairs, read_pairs
from encdec.evaluation.options import metric_options
from encdec.evaluation.significance import compare
from encdec.files import cache_folder
from encdec.interop.import_model import import_model
from encdec.models import registry
from encdec.parallel.devices import keep_compiled_programs
from encdec.runs import run as runs
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.training.initial import Initial


@dataclass(frozen=True)
class Options:
    """The model, the sentences, and how long to train."""

    model: str
    """Folder of the model, or its name on the hub."""
    train: Path
    """Tab-separated pairs to train on; a tenth of them, at most 200, is held out to validate on."""
    test: Path
    """Tab-separated pairs to test on."""
    runs: Path = Path("runs/pretrained")
    """Folder that the run folders go into."""
    source_language: str | None = None
    """Code of the source language, if the model knows several."""
    target_language: str | None = None
    """Code of the target language, if the model knows several."""
    steps: int = 300
    """Updates of the parameters."""
    batch_tokens: int = 1024
    """Tokens of the longer side in an update, padding included."""
    learning_rate: float = 3e-4
    """Of all parameters; low-rank additions have ten times this."""
    seed: int = 0
    """Seed of every random number."""


def settings(run: Run, options: Options, lora_rank: int = 0) -> RunConfig:
    """Those of the imported run for a short training."""
    config = run.config
    data = replace(config.data, batch_tokens=options.batch_tokens, num_buckets=4, holdout=200)
    training = replace(
        config.training,
        max_steps=options.steps,
        learning_rate=options.learning_rate * (10 if lora_rank else 1),
        schedule="cosine",
        warmup=min(50, options.steps // 2),
        evaluate_every=max(options.steps // 2, 1),
        evaluate_sentences=100,
    )
    tuning = FineTuningConfig(lora_rank=lora_rank)
    return RunConfig(config.model, data, training, options.seed, tuning, config.search)


def imported(options: Options) -> Run:
    """The run of the model; it is imported where it has not been yet."""
    folder = options.runs / "imported"
    if runs.is_run(folder):
        return runs.load(folder)
    options.runs.mkdir(parents=True, exist_ok=True)
    languages = {
        "source_language": options.source_language,
        "target_language": options.target_language,
    }
    return import_model(options.model, folder, **languages)


def main(options: Options) -> None:
    """Imports, trains and tests, and prints a line for each run."""
    keep_compiled_programs(cache_folder())
    run = imported(options)
    pairs = read_pairs(tsv=[options.train])
    test = read_pairs(tsv=[options.test])
    model = build_model(run)
    random = registry.init(model, jax.random.key(options.seed))
    nothing = Initial(jax.device_get(random), (run.src_vocabulary, run.tgt_vocabulary))
    starts: dict[str, tuple[RunConfig, Any]] = {
        "nothing": (settings(run, options), nothing),
        "low-rank": (settings(run, options, lora_rank=8), run),
        "whole": (settings(run, options), run),
    }
    before = report("imported", encdec.load(run.path), test, 0.0)
    for name, (config, init) in starts.items():
        start = time.perf_counter()
        result = encdec.train(
            config, list(zip(*pairs, strict=True)), run=options.runs / name, init=init
        )
        seconds = time.perf_counter() - start
        after = report(name, result.translator, test, seconds)
        compared = compare(before, after, [test.tgt], "bleu", metric_options(run.config))
        print(
            f"{'':12}{compared.difference:+.2f} BLEU against imported, p = {compared.p_value:.4f}"
        )


def report(name: str, translator: encdec.Translator, test: Pairs, seconds: float) -> list[str]:
    """Prints the metrics of a run on the test set; returns its translations."""
    evaluation = encdec.evaluate(translator, test, metrics=["bleu", "chrf"])
    values = evaluation.values
    print(
        f"{name:12}BLEU {values['bleu']:.2f}  chrF {values['chrf']:.2f}  "
        f"loss {values['loss']:.3f}  trained {seconds:.0f} s  "
        f"translated {len(test.src) / evaluation.seconds:.0f} sentences/s",
        flush=True,
    )
    return evaluation.hypotheses


if __name__ == "__main__":
    with as_command("pretrained.py"):
        main(tyro.cli(Options, description=__doc__))
