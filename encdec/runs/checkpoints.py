"""Checkpoints: Orbax writes and reads them, a CRC a leaf guards them.

A run keeps the latest state, to resume from; the best parameters, to translate with; and, where
it averages checkpoints, its recent parameters.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from encdec.types import InputError

Kind = Literal["latest", "best", "recent"]


class Checkpoints:
    """The checkpoints of a run folder, written in the background.

    A kill in mid-save leaves the one before it.

    Of several processes the first alone writes; all call the same methods.

    Args:
      run: the run folder.
      recent: how many recent ones are kept; none where it is 1.
      wait_for_all: returns when all processes have called it.
    """

    def __init__(
        self,
        run: Path,
        recent: int = 1,
        wait_for_all: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._run, self._wait_for_all = run, wait_for_all
        self._managers: dict[Kind, ocp.CheckpointManager] = {}
        if jax.process_index() > 0:
            return
        counts: dict[Kind, int] = {"latest": 1, "best": 1}
        if recent > 1:
            counts["recent"] = recent
        self._managers = {kind: self._open(kind, count) for kind, count in counts.items()}

    def _open(self, kind: Kind, count: int) -> ocp.CheckpointManager:
        folder = self._run.absolute() / "checkpoints" / kind
        folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=count,
            create=False,
            cleanup_tmp_directories=True,
            multiprocessing_options=_alone(),
        )
        return ocp.CheckpointManager(folder, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for manager in self._managers.values():
            manager.close()

    def has(self, kind: Kind, step: int) -> bool:
        """Whether a checkpoint is there; all processes are told the same."""
        found = step in steps(self._run, kind)
        self._wait_for_all(f"{kind} checkpoint has been looked for")
        return found

    def save(self, kind: Kind, step: int, tree: Any, note: dict[str, Any]) -> None:
        """Saves a pytree of arrays with a JSON note, in place of the last of its kind.

        The arrays are copied before this returns: their buffers may be donated after.
        """
        manager = self._managers.get(kind)
        if manager is None:
            return
        manager.wait_until_finished()
        leaves = flat(jax.device_get(tree))
        described = {
            name: {"type": _describe(leaf), "crc": _crc(leaf)} for name, leaf in leaves.items()
        }
        meta = {"leaves": described, "note": note}
        args = ocp.args.Composite(
            arrays=ocp.args.StandardSave(leaves), meta=ocp.args.JsonSave(meta)
        )
        manager.save(step, args=args, force=True)

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        for manager in self._managers.values():
            manager.wait_until_finished()

    def drop_after(self, step: int) -> None:
        """Deletes what is later than the step that a run resumes from."""
        for manager in self._managers.values():
            for later in [found for found in manager.all_steps() if found > step]:
                manager.delete(later)

    def mean_recent(self, like: Any) -> Any:
        """The mean of the recent checkpoints, as a pytree like `like` of NumPy arrays."""
        self.wait()
        self._wait_for_all("recent checkpoints are whole")
        found = steps(self._run, "recent")
        total = load(self._run, "recent", like, found[0])[0]
        for step in found[1:]:
            total = jax.tree.map(np.add, total, load(self._run, "recent", like, step)[0])
        self._wait_for_all("recent checkpoints are read")
        return jax.tree.map(lambda leaf: (leaf / len(found)).astype(leaf.dtype), total)


def steps(run: Path, kind: Kind) -> list[int]:
    """Steps of the whole checkpoints of a kind, in order."""
    folder = run / "checkpoints" / kind
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())


def load(run: Path, kind: Kind, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint.

    Args:
      run: the run folder.
      kind: which kind.
      like: a pytree of arrays or shapes; only its leaves are read.
      step: which of the kind; the last if left out.

    Returns:
      A pytree like `like` of NumPy arrays, and the note.

    Raises:
      InputError: there is none, it is of another model, or it is damaged.
    """
    saved_steps = steps(run, kind)
    if not saved_steps:
        raise InputError(f"{run} has no {kind} checkpoint yet: train it first")
    path = run.absolute() / "checkpoints" / kind / str(saved_steps[-1] if step is None else step)
    try:
        saved = json.loads((path / "meta" / "metadata").read_text())
        wanted = flat(jax.eval_shape(lambda x: x, like))
        _check_same(path, saved["leaves"], wanted)
        leaves = _read(path, wanted)
    except InputError:
        raise
    except Exception as error:  # Orbax and its storage raise many kinds
        raise InputError(f"checkpoint {path} cannot be read ({type(error).__name__})") from error
    for name, leaf in leaves.items():
        if _crc(leaf) != saved["leaves"][name]["crc"]:
            raise InputError(f"checkpoint {path} is damaged: {name} has changed since it was saved")
    tree = jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in wanted])
    return tree, saved["note"]


def _read(path: Path, wanted: dict[str, Any]) -> dict[str, np.ndarray]:
    arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in wanted}
    request = ocp.args.PyTreeRestore(wanted, restore_args=arguments, partial_restore=True)
    options = ocp.CompositeOptions(multiprocessing_options=_alone())
    handler = ocp.CompositeCheckpointHandler(composite_options=options)
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as reader:
        read = reader.restore(path, args=ocp.args.Composite(arrays=request))["arrays"]
    return {name: np.asarray(leaf) for name, leaf in read.items()}


def _alone() -> ocp.options.MultiprocessingOptions:
    """What this process writes or reads is no matter of the others."""
    here = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )


def _describe(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"


def _check_same(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Orbax casts a wrong type in silence, so types and shapes are compared first."""
    for name, leaf in wanted.items():
        if name not in saved:
            raise InputError(f"checkpoint {path} is of another model: it has no {name}")
        has = saved[name]["type"]
        if has != _describe(leaf):
            raise InputError(
                f"checkpoint {path} is of another model: {name} is {has}, not {_describe(leaf)}"
            )


def flat(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their dotted paths, which are the names that are saved."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True))


def _crc(leaf: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(leaf).tobytes())
