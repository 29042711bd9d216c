"""The Linen module of a run, and the parameters in its checkpoints."""

import hashlib

import jax
import numpy as np

from encdec.models import registry
from encdec.models.interface import EncoderDecoder
from encdec.parallel.layout import SINGLE_DEVICE, Layout
from encdec.parallel.process_memory import keep_less_beside
from encdec.runs import checkpoints
from encdec.runs.run import Run
from encdec.types import Params, Precision


def build_model(
    run: Run,
    layout: Layout = SINGLE_DEVICE,
    *,
    remat: bool = False,
    scan: bool = False,
    precision: Precision = "float32",
) -> EncoderDecoder:
    """Builds the module of a run, as one device of a layout has it.

    Args:
      run: settings and vocabularies.
      layout: the devices.
      remat: whether layers are computed again in the backward pass, which saves memory.
      scan: whether layers are compiled as a loop, see `encdec.parallel.layout.scans_layers`.
      precision: of matrix products.
    """
    return registry.build(
        run.config.model,
        run.src_vocabulary.size,
        run.tgt_vocabulary.size,
        joint=run.config.data.joint_vocabulary,
        shards=layout.axes.model,
        remat=remat,
        scan=scan,
        precision=precision,
    )


def abstract_params(run: Run) -> Params:
    """The parameters of a run as a pytree of shapes and dtypes."""
    return registry.abstract(build_model(run))


def parameter_count(run: Run) -> int:
    """The number of scalars in the parameters of a run."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(run)))


def best_params(run: Run) -> tuple[Params, int]:
    """Reads a run's best parameters, as NumPy arrays, and the step of their checkpoint.

    These are parameters of the model: low-rank additions are merged.

    Raises:
      InputError: the checkpoint is damaged, or there is none yet.
    """
    like = abstract_params(run)
    keep_less_beside(sum(4 * leaf.size for leaf in jax.tree.leaves(like)))
    tree, _ = checkpoints.load(run.path, "best", {"params": like})
    return tree["params"], checkpoints.steps(run.path, "best")[-1]


def digest(params: Params) -> str:
    """SHA-256 (hex) of the names, shapes, dtypes and values of parameters."""
    sha = hashlib.sha256()
    for name, leaf in checkpoints.flat(params).items():
        array = np.ascontiguousarray(leaf)
        sha.update(f"{name} {array.dtype}{array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
