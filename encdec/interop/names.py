"""Tables of names: which array of another format is which parameter of ours.

Formats of PyTorch keep a linear layer as [outputs, inputs]; ours is [*inputs, *outputs], so that
an attention kernel is [D, H, K] or [H, K, D].
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from encdec.config.checks import fits, type_name
from encdec.types import InputError


class Entry(NamedTuple):
    """One parameter in both formats.

    Attributes:
      ours: dotted name in our module.
      theirs: its names in the other format, of which a file has at least one.
      input_axes: of a linear layer, how many leading axes of ours are inputs; 0 for what is not
        transposed.
    """

    ours: str
    theirs: tuple[str, ...]
    input_axes: int = 0


class Fields(NamedTuple):
    """The settings of a model in another format, and the file that they are from."""

    values: Mapping[str, Any]
    path: str

    def require(self, name: str, hint: Any) -> Any:
        """The value of a field.

        Args:
          name: of the field.
          hint: the type of its value.

        Raises:
          InputError: the file does not have it, or it has another type.
        """
        if name not in self.values:
            raise InputError(
                f"{self.path} has no {name}: an importer cannot guess it, so add the field"
            )
        value = self.values[name]
        if not fits(value, hint):
            raise InputError(
                f"{self.path}: {name} = {value!r} cannot be used: it must be of type "
                f"{type_name(hint)}"
            )
        return value

    def get(self, name: str, hint: Any, default: Any = None) -> Any:
        """The value of a field that may be absent; null is as good as none.

        Raises:
          InputError: it has another type.
        """
        return default if self.values.get(name) is None else self.require(name, hint)

    def named(self, error: InputError) -> InputError:
        """An error of settings made of these fields, with the name of the file."""
        return error if str(error).startswith(self.path) else InputError(f"{self.path}: {error}")


def embeddings(
    sources: tuple[str, ...], targets: tuple[str, ...], output: str, tied: bool, joint: bool
) -> list[Entry]:
    """Source embedding, target embedding and output projection.

    Args:
      sources: names that the source embedding may have, then that of a shared matrix.
      targets: likewise for the target, then the name of the output that may be tied to it.
      output: the name of the output projection.
      tied: it is the target embedding.
      joint: source and target embedding are one matrix.
    """
    of_target, shared, _ = targets
    names = (shared, of_target, sources[0]) if joint else (of_target,)
    return [
        Entry("tgt_embedding.embedding", (*names, output) if tied else names),
        Entry("src_embedding.embedding", sources),
        Entry("logits.kernel", (output,), 1),
    ]


def to_ours(array: np.ndarray, shape: tuple[int, ...], entry: Entry, name: str) -> np.ndarray:
    """An array of the other format as our parameter; no copy where none is needed.

    Args:
      array: as it was read.
      shape: of our parameter.
      entry: how the two correspond.
      name: of the array in the other format, for errors.

    Raises:
      InputError: the sizes differ.
    """
    turned = array.T if entry.input_axes else array
    if entry.input_axes:
        sides = (shape[: entry.input_axes], shape[entry.input_axes :])
        expected: tuple[int, ...] = tuple(int(np.prod(side)) for side in sides)
    else:
        expected = shape
    # A bias may have an axis of length 1, or ours may split heads from their width.
    fits = turned.shape == expected if entry.input_axes else turned.size == np.prod(shape)
    if not fits:
        wanted = expected[::-1] if entry.input_axes else expected
        raise InputError(
            f"{name} has the shape {list(array.shape)}, but the settings want {list(wanted)}"
        )
    return turned.reshape(shape)


def to_theirs(array: np.ndarray, entry: Entry) -> np.ndarray:
    """The inverse of `to_ours`: our parameter as an array of the other format.

    A bias of the logits is [1, V] there, and other biases are flat.
    """
    if entry.input_axes:
        inputs = int(np.prod(array.shape[: entry.input_axes]))
        return np.ascontiguousarray(array.reshape(inputs, -1).T)
    if entry.ours == "logits.bias":
        return array[None]
    is_bias = entry.ours.rsplit(".", 1)[-1] in ("bq", "bk", "bv")
    return np.ascontiguousarray(array.reshape(-1) if is_bias else array)
