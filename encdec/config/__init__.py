"""All settings of a run, as frozen dataclasses that can be written as JSON and read again.

The docstrings below the fields are the help of the command line.
"""

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass, field
from typing import Any

from encdec.config.checks import check_types, fits, nearest, require, type_name
from encdec.config.data import CORPUS_SETTINGS, DataConfig
from encdec.config.devices import DeviceConfig, InferenceDeviceConfig, TrainingDeviceConfig
from encdec.config.families import family, family_name, family_names
from encdec.config.fine_tuning import FineTuningConfig
from encdec.config.models import AttentionConfig, ModelConfig, Seq2SeqConfig
from encdec.config.search import EnsembleOptions, SearchOptions
from encdec.config.training import BleuTokenizer, TrainingConfig
from encdec.config.transformer import TransformerConfig
from encdec.types import InputError

__all__ = [
    "AttentionConfig",
    "BleuTokenizer",
    "DataConfig",
    "DeviceConfig",
    "EnsembleOptions",
    "FineTuningConfig",
    "InferenceDeviceConfig",
    "ModelConfig",
    "RunConfig",
    "SearchOptions",
    "Seq2SeqConfig",
    "TrainingConfig",
    "TrainingDeviceConfig",
    "TransformerConfig",
    "digest",
    "family_names",
    "from_json",
    "nearest",
    "to_json",
]


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines what a run computes."""

    model: ModelConfig = field(default_factory=TransformerConfig)
    """Sizes and choices of the model."""
    data: DataConfig = field(default_factory=DataConfig)
    """Corpus, vocabulary, batches."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Loss, optimizer, schedule, validation."""
    seed: int = 0
    """Seed of all random numbers."""
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)
    """What the run begins from, and which parameters are trained."""
    search: SearchOptions = field(default_factory=SearchOptions)
    """How the trained run translates where nothing else is asked for."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.seed < 2**64, self, "seed", "at least 0 and below 2^64")
        longest = self.model.longest_sentence
        for name in ("max_source_length", "max_target_length"):
            length = getattr(self.data, name)
            if longest is not None and length >= longest:
                raise InputError(
                    f"{name} = {length} cannot be used: the model has {longest} learned positions, "
                    f"and the end token needs one; give at most {longest - 1}"
                )
        parts, tokens = self.training.gradient_accumulation, self.data.batch_tokens
        if parts > tokens:
            raise InputError(
                f"gradient_accumulation = {parts} cannot be used: a batch of batch_tokens = "
                f"{tokens} has at most so many parts"
            )
        if self.training.scheduled_sampling and not self.model.supports_scheduled_sampling:
            raise InputError(
                f"scheduled_sampling = {self.training.scheduled_sampling} cannot be used with "
                f"model {self.model_name}: it is for recurrent decoders, so leave it at 0"
            )

    @property
    def model_name(self) -> str:
        """The name of the model's family."""
        return family_name(self.model)

    def without_corpus(self) -> "RunConfig":
        """These settings for another corpus: without what the run trained on and began from."""
        none = DataConfig()
        corpus: Any = {name: getattr(none, name) for name in CORPUS_SETTINGS}
        return dataclasses.replace(
            self, data=dataclasses.replace(self.data, **corpus), fine_tuning=FineTuningConfig()
        )


def to_json(config: RunConfig) -> dict[str, Any]:
    """A RunConfig as JSON values; `model.kind` is the name of the model's family."""
    tree = dataclasses.asdict(config)
    tree["model"] = {"kind": config.model_name, **tree["model"]}
    return tree


def digest(config: RunConfig) -> str:
    """SHA-256 (hex) of the settings that determine the parameters after a given step.

    So max_steps counts only if the schedule depends on it.
    """
    tree = to_json(config)
    if not config.training.depends_on_max_steps:
        del tree["training"]["max_steps"]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def from_json(tree: dict[str, Any]) -> RunConfig:
    """The inverse of `to_json`.

    Raises:
      InputError: a field is unknown or has a value of the wrong type.
    """
    tree = dict(tree)
    for name in ("model", "data", "training", "fine_tuning", "search"):
        if not isinstance(part := tree.get(name, {}), dict):
            raise InputError(f"{name} = {part!r} is not a JSON object of settings")
    model = dict(tree.pop("model", {}))
    kind = str(model.pop("kind", None))
    parts = {
        "model": _build(family(kind).config, model, "model."),
        "data": _build(DataConfig, tree.pop("data", {}), "data."),
        "training": _build(TrainingConfig, tree.pop("training", {}), "training."),
        "fine_tuning": _build(FineTuningConfig, tree.pop("fine_tuning", {}), "fine_tuning."),
        "search": _build(SearchOptions, tree.pop("search", {}), "search."),
    }
    return _build(RunConfig, {**tree, **parts}, "")


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    """A dataclass from JSON values; `where` precedes the names of fields in errors."""
    of_class = typing.get_type_hints(kind)
    hints = {field.name: of_class[field.name] for field in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in hints:
            raise InputError(f"unknown field {where}{name}{nearest(name, hints)}")
        if not fits(value, hints[name]):
            raise InputError(f"{where}{name} = {value!r} is not of type {type_name(hints[name])}")
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})
