"""The state that a session of training begins with: new, or of the latest checkpoint."""

from typing import NamedTuple

from encdec.config import TrainingConfig, TrainingDeviceConfig
from encdec.ops.seeds import key_from_words, seed_words
from encdec.parallel import processes
from encdec.parallel.devices import chosen_precision
from encdec.parallel.layout import Layout, scans_layers
from encdec.parallel.process_memory import keep_less_beside
from encdec.runs import checkpoints
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.training.fine_tuning import roles_of_run
from encdec.training.initial import Initial
from encdec.training.memory import bytes_of, check_state
from encdec.training.optimizer import optimizer
from encdec.training.resume_point import ResumePoint
from encdec.training.sharded_state import StateSharding
from encdec.training.step import TrainState
from encdec.types import InputError


class Start(NamedTuple):
    """The start of a session.

    Attributes:
      state: the train state on its devices.
      done: the updates that it has had.
      point: early stopping, and the sums of metrics since the last row.
      is_saved: whether the run can be resumed from it: without the initial parameters where there
        were some.
    """

    state: TrainState
    done: int
    point: ResumePoint
    is_saved: bool

    def has_ended(self, training: TrainingConfig) -> bool:
        """Whether no step is left to train, or early stopping has ended the run."""
        return self.done >= training.max_steps or self.point.stopping.is_over(training.patience)


def begin(
    run: Run, layout: Layout, devices: TrainingDeviceConfig, initial: Initial | None
) -> tuple[StateSharding, Start]:
    """Puts the state that a session begins with on its devices.

    This is apart from `train_session` so that the caller can let go of the initial parameters.

    Args:
      run: its latest checkpoint is the state, if it has one.
      layout, devices: the devices, and how they are used.
      initial: the initial parameters of a new run; None for random ones.

    Raises:
      InputError: the latest checkpoint cannot be used, or the state does not fit into memory.
    """
    precision, scan = chosen_precision(devices.precision), scans_layers(layout, run.config.model)
    state_sharding = StateSharding(
        build_model(run),
        build_model(run, layout, remat=devices.remat, scan=scan, precision=precision),
        optimizer(run.config.training),
        run.config.training,
        layout,
        roles_of_run(run),
    )
    processes.on_all_processes(lambda: check_state(state_sharding.shard_shapes))
    keep_less_beside(bytes_of(state_sharding.shard_shapes))
    saved = checkpoints.steps(run.path, "latest")
    processes.check_same_step(saved[-1] if saved else 0)
    if saved:
        state, point = processes.on_all_processes(lambda: _read_latest(run, state_sharding))
        processes.check_equal({"latest checkpoint": checkpoints.digest(run.path, "latest")})
        return state_sharding, Start(state_sharding.shard(state), int(state.step), point, True)
    key = key_from_words(seed_words(run.config.seed))
    if initial is None:
        return state_sharding, Start(state_sharding.init(key), 0, ResumePoint(), True)
    first = state_sharding.start(initial.params, key)
    return state_sharding, Start(first, 0, ResumePoint(), False)


def _read_latest(run: Run, state_sharding: StateSharding) -> tuple[TrainState, ResumePoint]:
    """The latest state, and what was saved with it."""
    state, note = checkpoints.load(run.path, "latest", state_sharding.shapes)
    step = checkpoints.steps(run.path, "latest")[-1]
    where = f"checkpoint {run.path / 'checkpoints' / 'latest' / str(step)}"
    if int(state.step) != step:
        raise InputError(f"{where} is damaged: it holds the state of step {state.step}")
    return state, ResumePoint.from_note(note, where)
