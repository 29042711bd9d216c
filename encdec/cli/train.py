"""`encdec train`: reads the options, calls `encdec.train`, and shows the first results."""

import itertools
from collections.abc import Sequence
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tyro.conf import OmitArgPrefixes, arg

import encdec
from encdec import config as configs
from encdec.cli.parsing import parse
from encdec.cli.resume import resume_options, resume_request
from encdec.cli.train_request import TrainRequest, absolute, value_of
from encdec.config import (
    DataConfig,
    FineTuningConfig,
    RunConfig,
    SearchOptions,
    TrainingConfig,
    TrainingDeviceConfig,
)
from encdec.config.data import CORPUS_SETTINGS
from encdec.config.fine_tuning import check_model_matches
from encdec.config.presets import PRESETS, for_steps, preset
from encdec.files import cache_folder
from encdec.types import InputError

if TYPE_CHECKING:
    from encdec.inference.translator import Translator


def parse_train(arguments: Sequence[str]) -> TrainRequest:
    """Parses the arguments of `encdec train`.

    Raises:
      InputError: an option, preset or setting cannot be used.
    """
    words = list(arguments)
    resumes = any(word.split("=")[0] == "--resume" for word in words)
    return resume_request(words) if resumes else _request(words)


def _train_options(kind: type[Any]) -> type[Any]:
    """The options of `encdec train` for one of the models."""
    flat, families = OmitArgPrefixes, configs.family_names()
    texts = {
        "model": f"Model family: {', '.join(families)}.",
        "run": "Run folder; by default a folder under runs/, named after the settings.",
        "seed": "Seed of all random numbers.",
    }
    spec: list[Any] = [
        ("model", Annotated[str, arg(help=texts["model"], metavar="{" + ",".join(families) + "}")]),
        ("run", Annotated[Path | None, arg(help=texts["run"])]),
        ("seed", Annotated[int, arg(help=texts["seed"])]),
        ("sizes", Annotated[kind, flat]),
        ("data", Annotated[DataConfig, flat]),
        ("training", Annotated[TrainingConfig, flat]),
        ("fine_tuning", Annotated[FineTuningConfig, flat]),
        ("devices", Annotated[TrainingDeviceConfig, flat]),
    ]
    return make_dataclass("TrainOptions", spec, frozen=True)


def _request(arguments: list[str]) -> TrainRequest:
    """The request for a run from a preset and options."""
    name, arguments = _take_preset(arguments)
    first = value_of("--init-from", arguments)
    origin = _Origin(first, _origin_config(first)) if first else None
    start = _start(name or "dates", origin, arguments)
    description = (
        f"Trains a run. The same command resumes a run that was stopped; so does `encdec "
        f"train --resume RUN`, which takes {resume_options()}. Presets: {', '.join(PRESETS)}. The "
        f"defaults shown are those of {name or 'dates'}, {start.model_name}; with other "
        "--max-steps, --warmup and --num-buckets are by default at most what suits them."
    )
    kind = _train_options(type(start.model))
    default = kind(
        start.model_name,
        None,
        *(getattr(start, name) for name in ("seed", "model", "data", "training")),
        start.fine_tuning,
        TrainingDeviceConfig(),
    )
    model = value_of("--model", arguments)
    prog = "encdec train [PRESET]" + (f" --model {model}" if model else "")
    options: Any = parse(kind, arguments, prog, description, default)
    data = options.data
    if data.has_corpus and name is None and not origin:
        return _request(["tiny", *arguments])
    _check_preset(name, origin, has_corpus=data.has_corpus)
    init = options.fine_tuning.init_from
    init = init and str(Path(init).absolute())
    tuning = replace(options.fine_tuning, init_from=init)
    search = origin.config.search if origin else SearchOptions()
    config = RunConfig(
        options.sizes, absolute(data), options.training, options.seed, tuning, search
    )
    if origin:
        check_model_matches(origin.config, config, origin.folder)
        if not data.has_corpus and name is None:
            raise InputError(
                "name the corpus to fine-tune on by --source and --target, --tsv, or --corpus; the "
                "built-in dates by `encdec train dates --init-from ...`"
            )
    folder = options.run or _default_folder(name or "dates", config)
    return TrainRequest(config, folder, options.devices, init)


class _Origin(NamedTuple):
    """The run to begin from: its folder and settings."""

    folder: str
    config: RunConfig


def _start(name: str, origin: _Origin | None, arguments: list[str]) -> RunConfig:
    """The defaults: those of the preset, or the settings of the run to begin from."""
    model = value_of("--model", arguments)
    if model is None:
        model = origin.config.model_name if origin else "transformer"
    start = preset(name, model)
    if origin and origin.config.model_name == model:
        start = _like_origin(start, origin.config)
    steps = value_of("--max-steps", arguments)
    if steps and steps.isdecimal() and int(steps) > 0:
        start = for_steps(start, int(steps))
        start = _as_begun(start, value_of("--run", arguments))
    return start


def _check_preset(name: str | None, origin: _Origin | None, *, has_corpus: bool) -> None:
    """Raises InputError where the preset does not go with the corpus or the run to begin from."""
    if has_corpus and name == "dates":
        raise InputError(
            "preset dates has a built-in corpus: for another one use tiny, base or big"
        )
    if name in (None, "dates"):
        return
    if origin:
        raise InputError(
            f"preset {name} cannot be used with init_from: all settings are those of "
            f"{origin.folder} unless options say otherwise, so leave {name} out"
        )
    if not has_corpus:
        raise InputError(
            f"preset {name} needs a corpus: give --source and --target, --tsv, or --corpus"
        )


def _as_begun(start: RunConfig, folder: str | None) -> RunConfig:
    """The defaults, where the folder holds a run already: what suited its first number of steps."""
    from encdec.runs import run as runs

    if folder is None or not runs.is_run(Path(folder)):
        return start
    begun = runs.read_config(Path(folder))
    training = replace(start.training, warmup=begun.training.warmup)
    return replace(
        start, training=training, data=replace(start.data, num_buckets=begun.data.num_buckets)
    )


def _origin_config(folder: str) -> RunConfig:
    """The settings of the run to begin from."""
    from encdec.runs import run as runs

    return runs.load(folder).config


def _like_origin(start: RunConfig, origin: RunConfig) -> RunConfig:
    """The settings of the run to begin from, without its corpus."""
    corpus: Any = {name: getattr(start.data, name) for name in CORPUS_SETTINGS}
    data = replace(origin.data, **corpus)
    return replace(start, model=origin.model, data=data, training=origin.training)


def _take_preset(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The preset and the other arguments.

    The preset is the first word, or a preset's name that is not the value of an option.
    """
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    for i, (before, word) in enumerate(itertools.pairwise(arguments)):
        if word in PRESETS and (not before.startswith("-") or "=" in before):
            return word, arguments[: i + 1] + arguments[i + 2 :]
    return None, arguments


def _default_folder(name: str, config: RunConfig) -> Path:
    """A run folder with a name that differs between different settings."""
    return Path("runs") / f"{name}-{config.model_name}-{configs.digest(config)[:8]}"


def run(arguments: list[str]) -> None:
    """Trains a run, then prints its metrics and a few translations.

    Raises:
      InputError: bad input, before anything is written.
    """
    request = parse_train(arguments)
    from encdec.parallel import processes
    from encdec.parallel.devices import keep_compiled_programs

    keep_compiled_programs(cache_folder())
    result = encdec.train(
        request.config, run=request.folder, devices=request.devices, init=request.init
    )
    if processes.is_main_process():
        _show(encdec.load(result.run.path))
    processes.barrier("the end")


def _show(translator: "Translator") -> None:
    """Prints metrics on the held-out pairs, a few translations, and the paths of the results."""
    from encdec.cli.evaluate import evaluate_with_progress
    from encdec.cli.evaluation_text import held_out_name
    from encdec.evaluation.compute import validation_metrics
    from encdec.evaluation.options import metric_options

    run = translator.run
    names = validation_metrics(run.config.training.best_metric, metric_options(run.config))
    evaluation = evaluate_with_progress(translator, run.held_out, run.config.search, metrics=names)
    print(evaluation.report(held_out_name(run.config.data)))
    for source, reference, hypothesis in itertools.islice(
        zip(*run.held_out, evaluation.hypotheses, strict=True), 5
    ):
        print(f"\n  source     {source}\n  reference  {reference}\n  translated {hypothesis}")
    print(f"\nrun: {run.path}")
    alignment = translator(run.held_out.src[0])
    if alignment.attention is not None and alignment.attention.size:
        from encdec.plots.attention import save_figure
        from encdec.plots.runs import attention_picture

        picture = run.path / "attention.png"
        save_figure(attention_picture(translator, alignment), picture)
        print(f"attention: {picture}")
    print(f"try: echo '{run.held_out.src[0]}' | encdec translate {run.path}")
