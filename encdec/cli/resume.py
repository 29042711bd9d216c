"""The options of `encdec train --resume RUN`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, arg

from encdec.cli.parsing import parse
from encdec.cli.parsing_errors import option_names, unknown_options
from encdec.cli.train_request import TrainRequest, absolute, value_of
from encdec.config import TrainingDeviceConfig
from encdec.config.checks import nearest
from encdec.config.data import CORPUS_FILES
from encdec.types import InputError


@dataclass(frozen=True)
class _Moved:
    """Files of the corpus, where they are elsewhere now."""

    source: tuple[str, ...] = ()
    """Source files, if they have moved."""
    target: tuple[str, ...] = ()
    """Target files, if they have moved."""
    tsv: tuple[str, ...] = ()
    """Files of pairs, if they have moved."""
    valid_source: tuple[str, ...] = ()
    """Source files of validation, if they have moved."""
    valid_target: tuple[str, ...] = ()
    """Target files of validation, if they have moved."""
    valid_tsv: tuple[str, ...] = ()
    """Files of pairs of validation, if they have moved."""


@dataclass(frozen=True)
class _Resume:
    """The options of `encdec train --resume`."""

    resume: Annotated[
        Path,
        arg(metavar="RUN", help="Run folder to resume, with the settings and corpus of that run."),
    ]
    max_steps: Annotated[
        int | None, arg(help="Last step, instead of that of the run's settings.")
    ] = None
    moved: Annotated[_Moved, OmitArgPrefixes] = field(default_factory=_Moved)
    devices: Annotated[TrainingDeviceConfig, OmitArgPrefixes] = field(
        default_factory=TrainingDeviceConfig
    )


def resume_request(arguments: list[str]) -> TrainRequest:
    """The request to resume a run."""
    helps = {"-h", "--help"} & {*arguments}
    if not helps and not value_of("--resume", arguments):
        raise InputError(
            "--resume names no run: `encdec train --resume RUN` (encdec train --resume --help)"
        )
    if not helps:
        _refuse_settings(arguments)
    options = parse(
        _Resume,
        ["--help"] if helps else arguments,
        "encdec train",
        "Resumes a run that was stopped, from its latest checkpoint. All settings are those of the "
        "run, and only these options may differ. To train a run on with other settings, or beyond "
        "the end of its schedule, begin a new one from it: `encdec train --init-from RUN --run "
        "NEW ...`.",
    )
    from encdec.runs import checkpoints
    from encdec.runs import run as runs

    run = runs.load(options.resume)
    config = run.config
    if options.max_steps is not None:
        runs.check_max_steps(run, options.max_steps)
        done = max(checkpoints.steps(run.path, "latest"), default=0)
        if options.max_steps < done:
            raise InputError(
                f"max_steps = {options.max_steps} cannot be used: {run.path} has {done} steps "
                "already"
            )
        training = replace(config.training, max_steps=options.max_steps)
        config = replace(config, training=training)
    places: Any = {name: files for name, files in vars(options.moved).items() if files}
    config = replace(config, data=absolute(replace(config.data, **places)))
    for name in CORPUS_FILES:
        for file in getattr(config.data, name):
            if not Path(file).exists():
                raise InputError(
                    f"{file} of the corpus of {options.resume} is not there: if it has moved, "
                    f"say where it is by --{name.replace('_', '-')}"
                )
    return TrainRequest(config, options.resume, options.devices)


def _refuse_settings(arguments: list[str]) -> None:
    """Raises InputError for an option that --resume does not take, unless it looks misspelt."""
    for word in unknown_options(_Resume, arguments):
        name = word.split("=")[0]
        if not nearest(name.strip("-"), option_names(_Resume), "--"):
            raise InputError(
                f"{name} cannot be given with --resume: a resumed run keeps its settings, and only "
                f"{resume_options()} may differ; to change others, begin a new run by --init-from"
            )


def resume_options() -> str:
    """The options that may be given with --resume."""
    *most, last = (f"--{name}" for name in option_names(_Resume) if name not in ("help", "resume"))
    return f"{', '.join(most)} and {last}"
