"""The model of a run: its module, and its parameters as they stand in the folder."""


import jax

from encdec.models import registry
from encdec.models.interface import EncoderDecoder
from encdec.parallel.layout import SINGLE_DEVICE, Layout
from encdec.runs.run import Run
from encdec.runs import checkpoints
from encdec.types import Params


def build_model(run: Run, layout: Layout = SINGLE_DEVICE, *, remat: bool = False) -> EncoderDecoder:
    """The module of a run, as one device of a layout has it."""
    return registry.build(
        run.config.model,
        run.src_vocabulary.size,
        run.tgt_vocabulary.size,
        joint=run.config.data.joint_vocabulary,
        shards=layout.axes.model,
        remat=remat,
    )


def abstract_params(run: Run) -> Params:
    """Names, shapes and types of a run's parameters."""
    return registry.abstract(build_model(run))


def parameter_count(run: Run) -> int:
    """Numbers in a run's parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(run)))


def best_params(run: Run) -> tuple[Params, int]:
    """A run's best parameters (the latest where none was chosen yet), as NumPy arrays, and the
    step that they are of.

    Raises:
      InputError: the checkpoint is damaged, or there is none yet.
    """
    kind: checkpoints.Kind = "best" if checkpoints.steps(run.path, "best") else "latest"
    tree, _ = checkpoints.load(run.path, kind, {"params": abstract_params(run)})
    return tree["params"], checkpoints.steps(run.path, kind)[-1]
