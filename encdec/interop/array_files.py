"""The arrays of a model that the hub library saved, read one by one.

model.safetensors                 or in several files, with model.safetensors.index.json
pytorch_model.bin                 likewise; read only where PyTorch is installed
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  so that NumPy knows bfloat16, which safetensors then reads
import numpy as np
from safetensors import SafetensorError, safe_open

from encdec.files import parse_json
from encdec.types import InputError

_KINDS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""The types that are read, by their names in safetensors."""
_SAFETENSORS, _PICKLES = "model.safetensors", "pytorch_model.bin"


class StoredArray(NamedTuple):
    """An array in a file.

    Attributes:
      shape: of the array.
      kind: the type that it was saved in, one of float32, float16, bfloat16 and float64.
      read: returns it, or the given rows of it, as float32.
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
      InputError: there is no such file, one of several is missing or damaged, or an array is not of
        floats.
    """
    for name, opened in ((_SAFETENSORS, _of_safetensors), (_PICKLES, _of_pickle)):
        files = _files(folder, name)
        if files:
            arrays = {key: array for file in files for key, array in opened(file).items()}
            _check_kinds(arrays, folder)
            return arrays
    raise InputError(f"{folder} has no model: neither {_SAFETENSORS} nor {_PICKLES} is in it")


def _check_kinds(arrays: Mapping[str, StoredArray], folder: Path) -> None:
    for name, array in arrays.items():
        if array.kind not in _KINDS.values():
            raise InputError(
                f"{folder}: {name} is of type {array.kind}, but parameters must be of "
                f"{', '.join(_KINDS.values())}: save the model without quantization"
            )


def _files(folder: Path, name: str) -> list[Path]:
    """The files of a format: one, or those that the index lists, or none."""
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    try:
        places = parse_json(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted({folder / name for name in places.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is damaged: {error}") from error
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{index} lists {missing[0].name}, but it is not there: download it again")
    return files


def _of_safetensors(file: Path) -> dict[str, StoredArray]:
    def read(name: str, rows: slice | None = None) -> np.ndarray:
        with safe_open(file, "numpy") as opened:
            part = opened.get_tensor(name) if rows is None else opened.get_slice(name)[rows]
            return np.asarray(part.astype(np.float32, copy=False))

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
    are_arrays = isinstance(tensors, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in tensors.items()
    )
    if not are_arrays:
        raise InputError(f"{file} does not hold arrays by their names: save the model again")

    def read(name: str, rows: slice | None = None) -> np.ndarray:
        tensor = tensors[name] if rows is None else tensors[name][rows]
        return np.asarray(tensor.float().numpy())

    return {
        n: StoredArray(tuple(t.shape), str(t.dtype).removeprefix("torch."), partial(read, n))
        for n, t in tensors.items()
    }
