"""Presets: named settings, with a recipe for each model family.

`dates` is for the built-in corpus; `tiny`, `base` and `big` are sizes for any other text.
"""

import math
from dataclasses import replace

from encdec.config import (
    AttentionConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
    nearest,
)
from encdec.config.families import family
from encdec.types import InputError

_SIZES: dict[str, dict[str, ModelConfig]] = {
    "dates": {
        "seq2seq": Seq2SeqConfig(embed=32, hidden=256, dropout=0.0, reverse_source=False),
        "attention": AttentionConfig(embed=32, hidden=96, dropout=0.0),
        "transformer": TransformerConfig(
            layers=2, width=64, feed_forward=256, heads=4, dropout=0.0
        ),
    },
    "tiny": {
        "seq2seq": Seq2SeqConfig(embed=128, hidden=256, dropout=0.3),
        "attention": AttentionConfig(embed=128, hidden=256, dropout=0.3),
        "transformer": TransformerConfig(
            layers=4, width=128, feed_forward=256, heads=4, dropout=0.3
        ),
    },
    "base": {
        # Sutskever 2014, section 3.4; Bahdanau 2015, appendix A.2.3; Vaswani 2017, table 3.
        "seq2seq": Seq2SeqConfig(cell="lstm", layers=4, embed=1000, hidden=1000, dropout=0.0),
        "attention": AttentionConfig(cell="gru", layers=1, embed=620, hidden=1000, dropout=0.0),
        "transformer": TransformerConfig(
            layers=6, width=512, feed_forward=2048, heads=8, dropout=0.1, tie_embeddings=True
        ),
    },
    "big": {
        # Luong 2015, section 4.1; Vaswani 2017, table 3.
        "attention": AttentionConfig(
            cell="lstm",
            layers=4,
            embed=1000,
            hidden=1000,
            dropout=0.2,
            score="general",
            attention_type="luong",
        ),
        "transformer": TransformerConfig(
            layers=6, width=1024, feed_forward=4096, heads=16, dropout=0.3, tie_embeddings=True
        ),
    },
}

PRESETS = tuple(_SIZES)

_DATES_BUDGET = {
    "seq2seq": (3000, 1024),  # a fixed vector needs many small steps
    "attention": (700, 4096),
    "transformer": (1000, 4096),
}
"""Steps, and target or source tokens per step, that reach 0.99 exact match within minutes."""


_CONSTANT_RATE = TrainingConfig(
    learning_rate=1e-3, schedule="constant", warmup=0, beta2=0.999, epsilon=1e-8
)
"""Training settings for text, for families without an entry in `_TEXT_TRAINING`."""

# Vaswani 2017, equation 3: the highest rate is width^-0.5 * warmup^-0.5.
_TEXT_TRAINING = {
    "tiny": {"transformer": TrainingConfig(learning_rate=0.005, warmup=2000, max_steps=8000)},
    "base": {
        "transformer": TrainingConfig(
            learning_rate=(512 * 4000) ** -0.5, warmup=4000, max_steps=8000
        )
    },
    "big": {
        "transformer": TrainingConfig(
            learning_rate=(1024 * 4000) ** -0.5, warmup=4000, max_steps=8000
        )
    },
}


_STEPS_PER_BUCKET = 60
"""k shapes of batches are worth compiling in a run of k^2 times so many steps.

Compiling a shape of `tiny` takes as long as some 60 steps, and the padding that k shapes leave
falls about as 1 / k.
"""


def preset(name: str, model: str = "transformer", max_steps: int | None = None) -> RunConfig:
    """The settings of a preset for a model family.

    Args:
      name: of the preset.
      model: name of the family. One that is in no preset, as those registered from outside the
        package, gets its default sizes.
      max_steps: the updates of the run; None for those of the preset. See `for_steps`.

    Raises:
      InputError: there is no such preset or family, or the preset does not have the family.
    """
    if name not in _SIZES:
        raise InputError(f"unknown preset {name!r}{nearest(name, _SIZES)} ({', '.join(_SIZES)})")
    sizes = _SIZES[name]
    if model in sizes:
        size = sizes[model]
    elif any(model in other for other in _SIZES.values()):
        raise InputError(f"preset {name} has no {model}: one of {', '.join(sizes)}")
    else:
        size = family(model).config()
    config = RunConfig(size, *(_dates(model) if name == "dates" else _text(name, model, size)))
    return config if max_steps is None else for_steps(config, max_steps)


def for_steps(config: RunConfig, max_steps: int) -> RunConfig:
    """The settings with another number of updates, and what suits a run that is so short.

    The warm-up is at most a quarter of the run, and there are as few batch shapes to compile as the
    run is worth. A longer run changes neither.

    Args:
      config: settings.
      max_steps: updates of the parameters.

    Raises:
      InputError: `max_steps` is below 1.
    """
    training = replace(config.training, max_steps=max_steps)
    training = replace(training, warmup=min(training.warmup, max_steps // 4))
    worth = math.ceil(math.sqrt(max_steps / _STEPS_PER_BUCKET))
    data = replace(config.data, num_buckets=min(config.data.num_buckets, worth))
    return replace(config, data=data, training=training)


def preset_of(config: RunConfig) -> str | None:
    """The preset whose sizes a model has; None if it has none's."""
    sizes = {name: of_model.get(config.model_name) for name, of_model in _SIZES.items()}
    return next((name for name, size in sizes.items() if size == config.model), None)


def _dates(model: str) -> tuple[DataConfig, TrainingConfig]:
    steps, batch_tokens = _DATES_BUDGET.get(model, (1000, 4096))
    data = DataConfig(
        vocabulary="chars",
        max_source_length=64,
        max_target_length=16,
        batch_tokens=batch_tokens,
        num_buckets=2,
    )
    return data, TrainingConfig(
        max_steps=steps,
        learning_rate=2e-3,
        schedule="cosine",
        warmup=100,
        label_smoothing=0.0,
        evaluate_every=max(1, steps // 4),
        best_metric="exact_match",
        evaluate_sentences=500,
    )


def _text(name: str, model: str, size: ModelConfig) -> tuple[DataConfig, TrainingConfig]:
    data = DataConfig(
        vocabulary_size=None if name == "tiny" else 32_000,
        # Tied embeddings can only share the source's if both sides have one vocabulary.
        joint_vocabulary=getattr(size, "tie_embeddings", False),
        batch_tokens=4096 if name == "tiny" else 25_000,
    )
    return data, _TEXT_TRAINING[name].get(model, _CONSTANT_RATE)
