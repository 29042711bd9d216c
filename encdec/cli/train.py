"""`encdec train`: presets, overrides, or a run to resume; then training and the first results."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from tyro.conf import OmitArgPrefixes, arg

from encdec import config as configs
from encdec.cli.evaluate import evaluated, report
from encdec.cli.parsing import parse
from encdec.config import (
    MODELS,
    DataConfig,
    RunConfig,
    TrainingConfig,
    TrainingDeviceConfig,
)
from encdec.config.presets import PRESETS, preset
from encdec.evaluation import metrics
from encdec.files import cache_folder
from encdec.inference import translator as translators
from encdec.inference.translator import Translator
from encdec.parallel import processes
from encdec.parallel.devices import keep_compiled_programs
from encdec.runs import run as runs
from encdec.search.options import SearchOptions
from encdec.training.trainer import train_run
from encdec.types import InputError


class Wanted(NamedTuple):
    """What to train, where to keep it, and on which devices."""

    config: RunConfig
    folder: Path
    devices: TrainingDeviceConfig


def parse_train(arguments: Sequence[str]) -> Wanted:
    """The settings, the run folder and the devices.

    Raises:
      InputError: an option, preset or setting cannot be used.
    """
    words = list(arguments)
    return _resumed(words) if "--resume" in words else _wanted(words)


@dataclass(frozen=True)
class _Resume:
    resume: Annotated[Path, arg(help="Run folder to go on with, under its own settings.")]
    max_steps: Annotated[int | None, arg(help="Go on to this step instead of the run's own.")] = (
        None
    )
    devices: Annotated[TrainingDeviceConfig, OmitArgPrefixes] = field(
        default_factory=TrainingDeviceConfig
    )


def _resumed(arguments: list[str]) -> Wanted:
    """The settings that stand in a run folder."""
    options = parse(_Resume, arguments, "encdec train", "Goes on with a run.")
    config = runs.load(options.resume).config
    if options.max_steps is not None:
        fixed = config.training.depends_on_max_steps
        if fixed and options.max_steps != config.training.max_steps:
            raise InputError(
                f"max_steps of {options.resume} cannot change: its schedule ends at "
                f"{config.training.max_steps}"
            )
        training = replace(config.training, max_steps=options.max_steps)
        config = replace(config, training=training)
    return Wanted(config, options.resume, options.devices)


def _train_options(kind: type[Any]) -> type[Any]:
    """The options of `encdec train` for one of the models."""
    flat = OmitArgPrefixes
    texts = {
        "model": f"Which system: {', '.join(MODELS)}.",
        "run": "Run folder; left out, one under runs/ named after the settings.",
        "seed": "The one seed that every random number comes from.",
    }
    spec: list[Any] = [
        ("model", Annotated[str, arg(help=texts["model"], metavar="{" + ",".join(MODELS) + "}")]),
        ("run", Annotated[Path | None, arg(help=texts["run"])]),
        ("seed", Annotated[int, arg(help=texts["seed"])]),
        ("sizes", Annotated[kind, flat]),
        ("data", Annotated[DataConfig, flat]),
        ("training", Annotated[TrainingConfig, flat]),
        ("devices", Annotated[TrainingDeviceConfig, flat]),
    ]
    return make_dataclass("TrainOptions", spec, frozen=True)


def _wanted(arguments: list[str]) -> Wanted:
    """What the command line asks for."""
    name, arguments = _take_preset(arguments)
    model = _model_name(arguments)
    start = preset(name or "dates", model)
    description = (
        f"Trains a run; running the same command again goes on with it, and so does "
        f"`encdec train --resume RUN`. Presets: {', '.join(PRESETS)}. "
        f"Shown: {name or 'dates'}, {model}."
    )
    kind = _train_options(type(start.model))
    default = kind(
        model, None, start.seed, start.model, start.data, start.training, TrainingDeviceConfig()
    )
    options: Any = parse(kind, arguments, "encdec train [PRESET]", description, default)
    data = options.data
    if data.has_corpus and name is None:
        return _wanted(["tiny", *arguments])
    if data.has_corpus and name == "dates":
        raise InputError("preset dates makes its own corpus: for another use tiny, base or big")
    if not data.has_corpus and name not in (None, "dates"):
        raise InputError(
            f"preset {name} needs a corpus: give --source and --target, --tsv, or --corpus"
        )
    config = RunConfig(options.sizes, _absolute(data), options.training, options.seed)
    folder = options.run or _default_folder(name or "dates", config)
    return Wanted(config, folder, options.devices)


def _take_preset(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Takes the preset out: the first word, or a preset's name that no option stands before."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    for i, (before, word) in enumerate(itertools.pairwise(arguments)):
        if word in PRESETS and (not before.startswith("-") or "=" in before):
            return word, arguments[: i + 1] + arguments[i + 2 :]
    return None, arguments


def _model_name(arguments: list[str]) -> str:
    model = "transformer"
    for word, after in itertools.pairwise([*arguments, ""]):
        if word == "--model":
            model = after
        elif word.startswith("--model="):
            model = word.removeprefix("--model=")
    return model


def _absolute(data: DataConfig) -> DataConfig:
    """Names of files and folders that hold from any working folder."""
    names = ("source", "target", "tsv", "valid_source", "valid_target", "valid_tsv")
    found: Any = {
        name: tuple(str(Path(file).absolute()) for file in getattr(data, name)) for name in names
    }
    if data.corpus_folder is not None:
        found["corpus_folder"] = str(Path(data.corpus_folder).absolute())
    return replace(data, **found)


def _default_folder(name: str, config: RunConfig) -> Path:
    """A folder of its own for each set of settings, so that nothing collides."""
    tree = configs.to_json(config)
    if not config.training.depends_on_max_steps:
        del tree["training"]["max_steps"]
    mark = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / f"{name}-{config.model_name}-{mark}"


def run(arguments: list[str]) -> None:
    """Trains a run, then prints its metrics and a few translations.

    Raises:
      InputError: bad input, before anything is written.
    """
    config, folder, devices = parse_train(arguments)
    keep_compiled_programs(cache_folder())
    train_run(config, folder, devices=devices)
    if processes.is_main_process():
        _finish(translators.load(folder))
    processes.barrier("the end")


def _finish(translator: Translator) -> None:
    """Prints the held-out score, a few translations, and where things are."""
    run = translator.run
    found = evaluated(translator, run.held_out, SearchOptions(), names=metrics.QUICK)
    print(report(found))
    for source, reference, hypothesis in itertools.islice(
        zip(*run.held_out, found.hypotheses, strict=True), 5
    ):
        print(f"\n  source     {source}\n  reference  {reference}\n  translated {hypothesis}")
    print(f"\nrun: {run.path}")
    alignment = translator(run.held_out.src[0])
    if alignment.attention is not None and alignment.attention.size:
        from encdec.plots.attention import save_figure
        from encdec.plots.runs import attention_picture

        picture = run.path / "attention.png"
        save_figure(attention_picture(translator, alignment), picture)
        print(f"where it looked: {picture}")
    print(f"try: echo '{run.held_out.src[0]}' | encdec translate {run.path}")
