"""What a run starts from when it does not start from random parameters."""

from typing import Any, NamedTuple

import numpy as np

from encdec.data.vocabulary import Vocabulary
from encdec.runs.checkpoints import flat
from encdec.types import InputError, Params


class Initial(NamedTuple):
    """What the caller gives a new run to start from.

    Attributes:
      params: the parameters before the first step, as one device would have them, float32.
      vocabularies: source and target vocabulary that the parameters belong to; None to build them
        from the corpus.
    """

    params: Params
    vocabularies: tuple[Vocabulary, Vocabulary] | None = None


def check_params(params: Params, expected: Params) -> None:
    """Raises InputError unless names, shapes and dtypes of parameters are those of the model.

    Args:
      params: arrays.
      expected: arrays or shapes, as `encdec.runs.parameters.abstract_params` gives them.
    """
    given, wanted = flat(params), flat(expected)
    for name, leaf in wanted.items():
        if name not in given:
            raise InputError(f"init has no parameter {name}, which the model has: {_shape(leaf)}")
        if _shape(given[name]) != _shape(leaf):
            raise InputError(
                f"init has {name} = {_shape(given[name])}, but the model has {_shape(leaf)}: give "
                "parameters of the same configuration and vocabularies"
            )
    if unknown := given.keys() - wanted.keys():
        raise InputError(f"init has a parameter {min(unknown)}, which the model has not")


def _shape(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype)}{list(leaf.shape)}" if hasattr(leaf, "shape") else repr(leaf)
