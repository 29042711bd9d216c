"""Checkpoints of a run, written by Orbax, with a CRC for each array.

Arrays are read by TensorStore, whose formats Orbax writes: importing Orbax takes far longer than
reading the parameters, and only training needs it.

checkpoints/latest/STEP   the whole training state, to resume from
checkpoints/best/STEP     the parameters with the best validation metric, to translate with
checkpoints/recent/STEP   the last few parameters, where a run averages checkpoints
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import jax
import numpy as np
import tensorstore

from encdec.files import parse_json
from encdec.runs.write_errors import reason, without_tracebacks
from encdec.types import InputError

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

Kind = Literal["latest", "best", "recent"]

_FILE_BYTES = 1 << 26
"""Bytes of a file of arrays: as many are in memory, compressed, before they are written."""


class _NotCopied(np.ndarray):
    """An array of which Orbax takes no copy before it writes it."""

    def __deepcopy__(self, _: Any) -> "_NotCopied":
        return self


class Checkpoints:
    """Writes the checkpoints of a run folder, in the background.

    A checkpoint has a temporary name until it is complete, and the previous checkpoint is deleted
    only then: a process that is killed while it saves leaves the previous checkpoint.

    Of several processes only the main process writes, but all must call the same methods in the
    same order.

    Args:
      run: the run folder.
      recent: the number of recent checkpoints to keep; 1 keeps none.
      wait_for_all: a barrier: it returns once all processes have called it with the same text.
    """

    def __init__(
        self,
        run: Path,
        recent: int = 1,
        wait_for_all: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._run, self._wait_for_all = run, wait_for_all
        self._managers: dict[Kind, ocp.CheckpointManager] = {}
        self._exit = ExitStack()
        if jax.process_index() > 0:
            return
        counts: dict[Kind, int] = {"latest": 1, "best": 1}
        if recent > 1:
            counts["recent"] = recent
        self._managers = {kind: self._open(kind, count) for kind, count in counts.items()}

    def _open(self, kind: Kind, count: int) -> "ocp.CheckpointManager":
        import orbax.checkpoint as ocp

        folder = self._run.absolute() / "checkpoints" / kind
        folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=count,
            create=False,
            cleanup_tmp_directories=True,
            multiprocessing_options=_this_process(),
        )
        return ocp.CheckpointManager(folder, options=options)

    def __enter__(self) -> Self:
        self._exit.enter_context(without_tracebacks())
        self._exit.push(self._close)
        return self

    def __exit__(self, *error: Any) -> None:
        self._exit.__exit__(*error)

    def _close(self, kind: type[BaseException] | None, *_: object) -> None:
        for name, manager in self._managers.items():
            # After an error, which says more, a checkpoint that failed as well is not news.
            with suppress(InputError) if kind else nullcontext(), self._writing(name):
                manager.close()

    def has(self, kind: Kind, step: int) -> bool:
        """Whether a checkpoint exists; all processes get the same answer."""
        exists = step in steps(self._run, kind)
        # No process may delete the checkpoint before all processes have read the folder.
        self._wait_for_all(f"{kind} checkpoint has been looked for")
        return exists

    def save(
        self, kind: Kind, step: int, tree: Any, note: dict[str, Any], *, copy: bool = True
    ) -> None:
        """Saves a pytree of arrays; it replaces the oldest checkpoint of its kind.

        The arrays are copied before this returns, so their buffers may be donated afterwards.
        Without `copy` they must not change until `wait` returns.

        Args:
          kind: see the docstring of the module.
          step: the number of updates that training had made.
          tree: the arrays.
          note: JSON values to save with them.
          copy: see above; without it the arrays must be NumPy's.
        """
        import orbax.checkpoint as ocp

        manager = self._managers.get(kind)
        if manager is None:  # this process does not write
            return
        with self._writing(kind):
            manager.wait_until_finished()  # of the last save of this kind
        leaves = flat(jax.device_get(tree))
        described = {
            name: {"type": _describe(leaf), "crc": _crc32(leaf)} for name, leaf in leaves.items()
        }
        meta: dict[str, Any] = {"leaves": described, "note": note}
        meta["crc"] = _crc32_of_json(meta)
        if not copy:
            leaves = {name: leaf.view(_NotCopied) for name, leaf in leaves.items()}
        arrays = ocp.args.PyTreeSave(leaves, ocdbt_target_data_file_size=_FILE_BYTES)
        args = ocp.args.Composite(arrays=arrays, meta=ocp.args.JsonSave(meta))
        with self._writing(kind):
            manager.save(step, args=args, force=True)

    def wait(self) -> None:
        """Waits until all saved checkpoints are on disk."""
        for kind, manager in self._managers.items():
            with self._writing(kind):
                manager.wait_until_finished()

    @contextmanager
    def _writing(self, kind: Kind) -> Iterator[None]:
        """Turns the errors of Orbax and TensorStore, of many types, into an InputError."""
        try:
            yield
        except Exception as error:
            kept = steps(self._run, "latest")
            raise InputError(
                f"a checkpoint cannot be written to {self._run / 'checkpoints' / kind} "
                f"({reason(error)}): make room there, or have it made writable"
                + (f"; the same command resumes from step {kept[-1]}" if kept else "")
            ) from error

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints after a step; a run that resumes there writes them again."""
        for manager in self._managers.values():
            for later in [saved for saved in manager.all_steps() if saved > step]:
                manager.delete(later)

    def mean_recent(self, like: Any) -> Any:
        """Returns the mean of the recent checkpoints, a pytree like `like` of NumPy arrays."""
        self.wait()
        # All processes read the same files; the main process changes them only after the second
        # barrier.
        self._wait_for_all("recent checkpoints are complete")
        saved = steps(self._run, "recent")
        total = load(self._run, "recent", like, saved[0])[0]
        for step in saved[1:]:
            total = jax.tree.map(np.add, total, load(self._run, "recent", like, step)[0])
        self._wait_for_all("recent checkpoints have been read")
        return jax.tree.map(lambda leaf: (leaf / len(saved)).astype(leaf.dtype), total)


def steps(run: Path, kind: Kind) -> list[int]:
    """The steps of the complete checkpoints of a kind, ascending."""
    folder = run / "checkpoints" / kind
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())


def load(run: Path, kind: Kind, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint.

    Args:
      run: the run folder.
      kind: see the docstring of the module.
      like: a pytree of arrays or of shapes and dtypes; only these leaves are read.
      step: the step of the checkpoint; None for the last one.

    Returns:
      A pytree like `like` of NumPy arrays, and the note that was saved with it.

    Raises:
      InputError: there is no checkpoint, it belongs to another model, or it is damaged.
    """
    saved_steps = steps(run, kind)
    if not saved_steps:
        raise InputError(f"{run} has no {kind} checkpoint yet: train it first")
    path = run.absolute() / "checkpoints" / kind / str(saved_steps[-1] if step is None else step)
    try:
        saved = _read_meta(path)
        wanted = flat(jax.eval_shape(lambda x: x, like))
        _check_types(path, saved["leaves"], wanted)
        leaves = _read(path, wanted)
    except InputError:
        raise
    except Exception as error:  # TensorStore raises errors of many types
        raise InputError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): its files are damaged or "
            "missing; copy the run folder again"
        ) from error
    for name, leaf in leaves.items():
        if _crc32(leaf) != saved["leaves"][name]["crc"]:
            raise InputError(
                f"checkpoint {path} is damaged: {name} has changed since it was saved; copy the "
                "run folder again"
            )
    tree = jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in wanted])
    return tree, saved["note"]


def digest(run: Path, kind: Kind) -> str:
    """SHA-256 (hex) of the CRCs and the note of the last checkpoint of a kind.

    Where `load` has accepted the checkpoint, it identifies its arrays.
    """
    path = run / "checkpoints" / kind / str(steps(run, kind)[-1]) / "meta" / "metadata"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path, wanted: dict[str, Any]) -> dict[str, np.ndarray]:
    """Reads the arrays of these names to the host; others in the checkpoint are not read."""
    store = {"driver": "ocdbt", "base": (path / "arrays").as_uri()}
    context = tensorstore.Context()  # in which the index of the arrays is read once
    opened = {
        name: tensorstore.open(
            {"driver": "zarr", "kvstore": {**store, "path": f"{name}/"}}, read=True, context=context
        )
        for name in wanted
    }
    reads = {name: array.result().read() for name, array in opened.items()}
    return {name: np.asarray(read.result()) for name, read in reads.items()}


def _read_meta(path: Path) -> dict[str, Any]:
    """The description of the arrays of a checkpoint, and its note.

    Raises:
      InputError: they are not what was written.
    """
    meta = parse_json((path / "meta" / "metadata").read_text())
    crc = meta.pop("crc", None)  # earlier versions wrote none
    if crc is not None and crc != _crc32_of_json(meta):
        raise InputError(
            f"checkpoint {path} is damaged: meta/metadata has changed since it was saved"
        )
    return {"leaves": meta["leaves"], "note": meta["note"]}


def _this_process() -> "ocp.options.MultiprocessingOptions":
    """Options with which Orbax does not wait for other processes."""
    import orbax.checkpoint as ocp

    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process{index}"
    )


def _describe(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"


def _check_types(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compares dtypes and shapes with those that were saved."""
    for name, leaf in wanted.items():
        if name not in saved:
            raise InputError(f"checkpoint {path} belongs to another model: it has no {name}")
        has = saved[name]["type"]
        if has != _describe(leaf):
            raise InputError(
                f"checkpoint {path} belongs to another model: "
                f"{name} is {has}, not {_describe(leaf)}"
            )


def flat(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their dotted paths, the names under which they are saved."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True))


def _crc32_of_json(tree: Any) -> int:
    """CRC of JSON values, in whatever order and layout a file has them."""
    return zlib.crc32(json.dumps(tree, sort_keys=True).encode())


def _crc32(leaf: Any) -> int:
    flat_bytes = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
    return zlib.crc32(flat_bytes)
