"""A run folder with untrained parameters, for tests that open a run, translate or plot."""

from dataclasses import replace
from pathlib import Path

import jax

from encdec.config import (
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.config.data import VocabularyKind
from encdec.data import vocabulary
from encdec.data.dates import dates
from encdec.models import registry
from encdec.runs import run as runs
from encdec.runs.checkpoints import Checkpoints
from encdec.runs.parameters import build_model
from encdec.runs.run import Run
from encdec.types import SpecialIds

EOS = SpecialIds().end

SMALL = TransformerConfig(layers=2, width=8, feed_forward=12, heads=2)


def small_run(
    path: Path,
    model: ModelConfig = SMALL,
    joint: bool = False,
    ending: float = 2.0,
    kind: VocabularyKind = "chars",
) -> Run:
    """Writes a run on dates with an untrained model.

    `ending` is the output bias of the end token: the higher it is, the shorter the translations.
    """
    made = dates(200, 0)
    longest = (model.longest_sentence or 257) - 1  # and the end token
    data = DataConfig(
        vocabulary=kind,
        joint_vocabulary=joint,
        max_source_length=longest,
        max_target_length=longest,
    )
    source = vocabulary.build(kind, [*made.train.src, *(made.train.tgt if joint else [])], None)
    target = source if joint else vocabulary.build(kind, made.train.tgt, None)
    config = RunConfig(model, data, TrainingConfig(max_steps=1))
    run = Run(path, config, "0" * 64, 12, source, target, made.test)
    held_out = replace(run, held_out=type(made.test)(*(side[:7] for side in made.test)))
    runs.create(held_out)
    params = registry.init(build_model(run), jax.random.key(0))
    params["logits"]["bias"] = params["logits"]["bias"].at[EOS].set(ending)
    with Checkpoints(path) as saved:
        saved.save("best", 1, {"params": params}, {})
    return held_out
