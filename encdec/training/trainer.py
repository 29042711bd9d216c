"""Trains a run: from settings and a corpus or batches to parameters in a run folder."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from encdec import config as configs
from encdec import files
from encdec.config import (
    DeviceConfig,
    InferenceDeviceConfig,
    RunConfig,
    TrainingDeviceConfig,
)
from encdec.data.corpus import TrainingText
from encdec.data.given_batches import GivenBatches
from encdec.evaluation.compute import validation_metrics
from encdec.evaluation.options import metric_options, tokenizer_note
from encdec.inference.translator import Translator, load_on
from encdec.parallel import connection, processes
from encdec.parallel.layout import Layout
from encdec.progress import to_stderr
from encdec.runs import run as runs
from encdec.runs.lock import locked
from encdec.runs.parameters import digest
from encdec.runs.run import Run
from encdec.training.callbacks import Callback, check_callbacks
from encdec.training.initial import Init, Initial, name_origin, read_initial
from encdec.training.memory import check_parameters
from encdec.training.pipeline import Pipeline, Say, open_pipeline, read_data
from encdec.training.programs import Programs, prepare
from encdec.training.session import train_session
from encdec.training.sharded_state import StateSharding
from encdec.training.start import Start, begin
from encdec.types import InputError


@dataclass(frozen=True, repr=False)
class TrainResult:
    """A trained run.

    Attributes:
      run: the run, in its folder.
      step: the number of updates of the run.
      trained_steps: the number of updates of this call; 0 if the run had ended before.
      devices: the devices on which it was trained.
    """

    run: Run
    step: int
    trained_steps: int
    devices: DeviceConfig

    def __repr__(self) -> str:
        return (
            f"TrainResult(run={str(self.run.path)!r}, step={self.step}, "
            f"trained_steps={self.trained_steps})"
        )

    @cached_property
    def translator(self) -> Translator:
        """A translator with the run's best parameters, loaded when it is first used.

        For a run on batches it reads and writes token ids as text, "17 4 9".
        """
        devices = InferenceDeviceConfig(self.devices.layout, self.devices.precision)
        return load_on(devices, self.run.path)


def train(
    config: RunConfig,
    corpus: Any = None,
    *,
    run: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    init: Init | None = None,
    devices: TrainingDeviceConfig | None = None,
    say: Say = to_stderr,
) -> TrainResult:
    """Trains a run; a run that was stopped or killed is resumed from its latest checkpoint.

    A resumed run ends with the same parameters as a run that was never stopped, to the last bit.
    The corpus and the settings must be given again; callbacks and devices may differ.

    Args:
      config: settings, such as those of `encdec.preset`.
      corpus: the training data:
        None, for the corpus that the settings name;
        pairs (source, target) of text: a list of them, or a `Pairs`;
        an `encdec.Corpus`, or any object with its attributes `train` and `valid`;
        batches of token ids: an iterable of `encdec.Batch`, which is repeated, or a function from
        the number of steps done to an iterator over the batches that follow. Then
        `config.data.vocabulary_size` is the number of ids, on both sides.
      run: the run folder. It is created, or must hold this very run. None takes a folder under
        runs/, named after model, settings and text, so that the same call resumes the same run.
      callbacks: functions (step, metrics, state), called with every row of metrics; a true value
        stops training, and the run is saved first. See `encdec.training.callbacks`.
      init: the initial parameters of a new run; None for random parameters:
        a run or its folder, for its best parameters, vocabularies and text preprocessing (the
        settings of model and vocabulary must be those of that run, except for dropout);
        `config.fine_tuning.init_from` does the same;
        or a pytree of parameters, as on a single device; `Initial` adds vocabularies.
        A resumed run needs no init; if one is passed, it must be the one that the run began with.
      devices: the devices to train on; None splits each batch over all devices.
      say: is called with each line about the start, the steps, the validations and the end; by
        default it prints to stderr. On a terminal and in a notebook a bar shows the steps instead.

    Raises:
      InputError: bad input, before anything is written; a loss that is not finite; or a file that
        cannot be written.
      Interrupted: a KeyboardInterrupt: SIGINT or SIGTERM came, and the run was saved.
      Exception: any exception of a callback, after the run was saved.
    """
    _check_config(config)
    run = run if run is None else files.given_path("run", run)
    check_callbacks(callbacks)
    devices = devices or TrainingDeviceConfig()
    connection.connect(devices, say)
    say = say if processes.is_main_process() else _silent
    try:
        return _train(config, corpus, run, callbacks, init, devices, say)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise InputError(
            f"another process has ended or cannot be reached ({str(error).splitlines()[0]}): see "
            "its messages; the same command on all processes resumes from the latest checkpoint"
        ) from error


def _check_config(config: Any) -> None:
    """Raises InputError unless it is a RunConfig."""
    if not isinstance(config, RunConfig):
        raise InputError(
            f"config is a {type(config).__name__}, not a RunConfig: "
            'encdec.preset("tiny", "transformer") makes one'
        )


def _silent(_: str) -> None:
    """Prints nothing: the main process prints the lines of all."""


def _train(
    config: RunConfig,
    corpus: Any,
    run: str | Path | None,
    callbacks: Sequence[Callback],
    init: Init | None,
    devices: TrainingDeviceConfig,
    say: Say,
) -> TrainResult:
    with ExitStack() as locks:
        pipeline, programs, state_sharding, start = _begin(
            config, corpus, run, init, devices, say, locks
        )
        before, step = train_session(
            pipeline, programs, state_sharding, start, callbacks, say, devices.save_minutes
        )
    return TrainResult(pipeline.run, step, step - before, devices)


def _begin(
    config: RunConfig,
    corpus: Any,
    run: str | Path | None,
    init: Init | None,
    devices: TrainingDeviceConfig,
    say: Say,
    locks: ExitStack,
) -> tuple[Pipeline, Programs, StateSharding, Start]:
    """Checks all input, opens the run, puts its state on the devices and makes its programs.

    A new run is removed if this fails: because a batch does not fit into memory, say.

    `locks` gets the lock of the run folder, which the main process holds.
    """
    notes: list[str] = []  # printed once all input has been checked
    if run is not None:  # before a large corpus is read
        _lock(Path(run), locks)
    config = processes.on_all_processes(lambda: name_origin(config, init))
    metrics = metric_options(config)
    processes.on_all_processes(lambda: validation_metrics(config.training.best_metric, metrics))
    layout = processes.on_all_processes(lambda: _layout(config, devices))
    processes.on_all_processes(lambda: check_parameters(config))
    # Where the cache of one process is that of all, one reads and encodes the text for all.
    cache = files.cache_folder()
    is_shared = processes.share_folder(cache)
    reads_first = config.data.has_files and is_shared
    on_processes = processes.main_process_first if reads_first else processes.on_all_processes
    data = on_processes(lambda: read_data(config, corpus, layout, notes.append))
    if isinstance(data, TrainingText) and not is_shared:
        notes.append(
            f"the processes do not share {cache}, so each of them reads and encodes the text: a "
            "shared folder in the environment variable XDG_CACHE_HOME would spare that"
        )
    folder = processes.on_all_processes(lambda: _folder(run, config, data))
    initial = processes.on_all_processes(lambda: read_initial(config, init, folder))
    processes.check_equal(_facts(config, folder, data, initial, devices))
    if run is None:
        _lock(folder, locks)
    pipeline = processes.main_process_first(
        lambda: open_pipeline(config, folder, data, layout, initial, notes.append, say)
    )
    if isinstance(data, TrainingText) and (said := tokenizer_note(metrics, data.valid.tgt)):
        notes.append(said)
    training = config.training
    if training.warmup >= training.max_steps:
        notes.append(
            f"warmup = {training.warmup} is not shorter than max_steps = {training.max_steps}: the "
            "learning rate stays below learning_rate"
        )
    for note in notes:
        say(note)
    with runs.removed_on_error(pipeline.run.path) if pipeline.is_new else nullcontext():
        state_sharding, start = begin(pipeline.run, layout, devices, initial)
        programs = prepare(pipeline, state_sharding, start, say)
    return pipeline, programs, state_sharding, start


def _lock(folder: Path, locks: ExitStack) -> None:
    """Adds the lock of the run folder, which the main process holds."""
    processes.on_all_processes(lambda: runs.check_folder(folder))
    lock = locked(folder) if processes.is_main_process() else nullcontext()
    processes.on_all_processes(lambda: locks.enter_context(lock))


def _layout(config: RunConfig, devices: TrainingDeviceConfig) -> Layout:
    """The layout of the options, checked against the model."""
    layout = Layout.parse(devices.layout, shard_optimizer=devices.shard_optimizer)
    layout.check_model(config.model)
    if devices.remat and not config.model.supports_remat:
        raise InputError(f"model {config.model_name} has no layers for remat: leave it out")
    return layout


def _folder(run: str | Path | None, config: RunConfig, data: TrainingText | GivenBatches) -> Path:
    """The run folder; by default one named after model, settings and text."""
    if run is not None:
        return Path(run)
    if not isinstance(data, TrainingText):
        raise InputError("batches have no text to name a run folder after: give one as run")
    mark = hashlib.sha256(f"{configs.digest(config)} {data.digest}".encode()).hexdigest()[:8]
    return Path("runs") / f"{config.model_name}-{mark}"


def _facts(
    config: RunConfig,
    folder: Path,
    data: TrainingText | GivenBatches,
    initial: Initial | None,
    devices: TrainingDeviceConfig,
) -> dict[str, str]:
    """Values that must be equal on all processes, by name."""
    shared = replace(devices, coordinator=None, processes=None, process=None)
    return {
        "version of encdec or JAX": f"{version('encdec')} {jax.__version__}",
        "configuration": json.dumps(configs.to_json(config)),
        "layout, precision or use of memory": str(shared),
        "run folder": folder.name,
        "corpus": data.digest if isinstance(data, TrainingText) else "batches",
        "initial parameters": digest(initial.params) if initial else "random",
    }
