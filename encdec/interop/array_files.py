"""The arrays of a model that the hub library saved, read one by one.

model.safetensors                 or in several files, with model.safetensors.index.json
pytorch_model.bin                 likewise; read only where PyTorch is installed
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from encdec.files import parse_json
from encdec.types import InputError

_KINDS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""Names of types in safetensors."""
_SAFETENSORS, _PICKLES = "model.safetensors", "pytorch_model.bin"


class StoredArray(NamedTuple):
    """An array in a file.

    Attributes:
      shape: of the array.
      kind: the type that it was saved in, such as "bfloat16".
      read: returns it, or the given rows of it, as float32, or in the type that it was saved in if
        that is no float.
    """

    shape: tuple[int, ...]
    kind: str
    read: Callable[..., np.ndarray]

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


def stored_arrays(folder: Path) -> dict[str, StoredArray]:
    """All arrays of a model by their names; nothing but names and shapes is read yet.

    Raises:
      InputError: there is no such file, one of several is missing, or one is damaged.
    """
    for name, opened in ((_SAFETENSORS, _of_safetensors), (_PICKLES, _of_pickle)):
        files = _files(folder, name)
        if files:
            return {key: array for file in files for key, array in opened(file).items()}
    raise InputError(f"{folder} has no model: neither {_SAFETENSORS} nor {_PICKLES} is in it")


def _files(folder: Path, name: str) -> list[Path]:
    """The files of a format: one, or those that the index lists, or none."""
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    try:
        names = sorted(set(parse_json(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is damaged: {error}") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{index} lists {missing[0]}, but it is not there: download it again")
    return [folder / name for name in names]


def _of_safetensors(file: Path) -> dict[str, StoredArray]:
    def read(name: str, rows: slice | None = None) -> np.ndarray:
        with safe_open(file, "numpy") as opened:
            part = opened.get_tensor(name) if rows is None else opened.get_slice(name)[rows]
            return _as_float32(part)

    try:
        with safe_open(file, "numpy") as opened:
            names: list[str] = opened.keys()
            slices = {name: opened.get_slice(name) for name in names}
            facts = {n: (tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    return {
        n: StoredArray(shape, _KINDS.get(kind, kind), partial(read, n))
        for n, (shape, kind) in facts.items()
    }


def _of_pickle(file: Path) -> dict[str, StoredArray]:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise InputError(
            f"{file} can only be read with PyTorch: pip install torch, or save the model as "
            f"{_SAFETENSORS}"
        ) from error
    try:
        tensors: dict[str, Any] = torch.load(file, "cpu", weights_only=True, mmap=True)
    except Exception as error:  # PyTorch raises errors of many types
        raise InputError(f"{file} cannot be read by PyTorch ({type(error).__name__})") from error

    def read(name: str, rows: slice | None = None) -> np.ndarray:
        tensor = tensors[name] if rows is None else tensors[name][rows]
        floats = tensor.float() if tensor.is_floating_point() else tensor
        return np.asarray(floats.numpy())

    return {
        n: StoredArray(tuple(t.shape), str(t.dtype).removeprefix("torch."), partial(read, n))
        for n, t in tensors.items()
    }


def _as_float32(array: np.ndarray) -> np.ndarray:
    # NumPy knows bfloat16, and safetensors reads it, since ml_dtypes was imported.
    is_float = np.issubdtype(array.dtype, np.floating) or array.dtype == ml_dtypes.bfloat16
    return array.astype(np.float32, copy=False) if is_float else array
