"""The registry of model families: the name of each, its settings, and where its module is."""

import dataclasses
import importlib
from typing import Any, NamedTuple

from encdec.config.checks import nearest
from encdec.config.models import AttentionConfig, ModelConfig, Seq2SeqConfig
from encdec.config.transformer import TransformerConfig
from encdec.types import InputError


class Family(NamedTuple):
    """A model family.

    Attributes:
      config: the class of its settings.
      module: its Linen module (see `encdec.models.interface`), or "package.module:Class" to import
        it from when a model is first built.
    """

    config: type[ModelConfig]
    module: Any


_FAMILIES = {
    "seq2seq": Family(Seq2SeqConfig, "encdec.models.seq2seq:Seq2Seq"),
    "attention": Family(AttentionConfig, "encdec.models.rnn_attention:RNNAttention"),
    "transformer": Family(TransformerConfig, "encdec.models.transformer:Transformer"),
}


def register(name: str, config: type[ModelConfig], module: Any) -> None:
    """Adds a family: from now on settings, runs and commands know it by its name.

    Args:
      name: for `--model` and config.json.
      config: a frozen dataclass of the family's settings, each with a default; a subclass of
        `ModelConfig`.
      module: the Linen module, a subclass of `encdec.models.interface.EncoderDecoder`, or
        "package.module:Class".

    Raises:
      InputError: another family has the name, or `config` is not such a class.
    """
    if not isinstance(name, str):
        raise InputError(f"name = {name!r} is a {type(name).__name__}: give the family's name")
    if not isinstance(config, type):
        raise InputError(f"config = {config!r} is no class: give that of the family's settings")
    known = _FAMILIES.get(name)
    # A notebook's cell that is run again defines the same class again.
    if known and (known.config.__module__, known.config.__qualname__) != (
        config.__module__,
        config.__qualname__,
    ):
        raise InputError(f"a model family {name!r} is registered already: choose another name")
    if not (issubclass(config, ModelConfig) and dataclasses.is_dataclass(config)):
        raise InputError(f"{config.__name__} must be a frozen dataclass and a ModelConfig")
    try:
        config()
    except TypeError as error:
        raise InputError(f"{config.__name__}: every field needs a default ({error})") from error
    _FAMILIES[name] = Family(config, module)


def family_names() -> tuple[str, ...]:
    """The names of all registered families."""
    return tuple(_FAMILIES)


def family(name: str) -> Family:
    """The family of a name.

    Raises:
      InputError: none has it.
    """
    if name not in _FAMILIES:
        raise InputError(
            f"unknown model {name!r}{nearest(name, _FAMILIES)} ({', '.join(_FAMILIES)}): a family "
            "of your own must be registered first, by importing the module that does so"
        )
    return _FAMILIES[name]


def family_name(config: ModelConfig) -> str:
    """The name of the family that settings belong to.

    Raises:
      InputError: their class is not registered.
    """
    for name, known in _FAMILIES.items():
        if type(config) is known.config:
            return name
    raise InputError(f"{type(config).__name__} belongs to no registered model family")


def module_class(config: ModelConfig) -> Any:
    """The Linen module of the family that settings belong to, imported if need be."""
    module = _FAMILIES[family_name(config)].module
    if isinstance(module, str):
        path, _, name = module.partition(":")
        module = getattr(importlib.import_module(path), name)
    return module
