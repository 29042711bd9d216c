"""Models in the hub library's format: settings and arrays of a folder as ours.

The format of each architecture is a table of names, in a file of its own.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from encdec.config import TransformerConfig
from encdec.files import parse_json
from encdec.interop import bart, t5
from encdec.interop.array_files import StoredArray, stored_arrays
from encdec.interop.names import Entry, Fields, to_ours
from encdec.models import registry
from encdec.models.interface import EncoderDecoder
from encdec.runs.checkpoints import flat
from encdec.runs.run import Run
from encdec.types import InputError, Params

NAMES_FILE = "arrays.json"
"""In the folder of an imported model's own files: the names of its arrays, a JSON list."""

_ROWS = 1 << 12
"""Rows of two matrices that are compared at a time."""
_UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
"""Arrays that old files have and no model reads."""


class Architecture(NamedTuple):
    """How models of one kind are described and named.

    Attributes:
      model_config: from the fields of config.json.
      table: the names of all parameters that such a model may have, from its settings and whether
        both sides have one embedding.
      sources, targets: the names of their embeddings, likeliest first; a shared matrix has any.
      output: the name of the output projection.
    """

    model_config: Callable[[Fields], TransformerConfig]
    table: Callable[[TransformerConfig, bool], list[Entry]]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    output: str


ARCHITECTURES = {
    name: Architecture(
        module.model_config, module.table, module.SOURCES, module.TARGETS, module.OUTPUT
    )
    for module in (bart, t5)
    for name in module.MODEL_TYPES
}
"""By `model_type` in config.json."""


class HubModel(NamedTuple):
    """A model in a folder, before its parameters are read.

    Attributes:
      fields: config.json.
      config: settings of our module.
      src_vocabulary, tgt_vocabulary: the number of ids of either side.
      joint: both sides have one vocabulary and one embedding.
      arrays: what the files hold.
      entries: for each of our parameters, where it is.
    """

    fields: Fields
    config: TransformerConfig
    src_vocabulary: int
    tgt_vocabulary: int
    joint: bool
    arrays: Mapping[str, StoredArray]
    entries: Mapping[str, Entry]


def open_folder(folder: Path) -> HubModel:
    """Reads the settings of a model, and which arrays it has.

    Raises:
      InputError: a file or field is missing or damaged, the architecture is not supported, or an
        array is missing or belongs to no parameter.
    """
    fields = read_fields(folder / "config.json")
    kind = fields.require("model_type", str | None)
    if kind not in ARCHITECTURES:
        raise InputError(
            f"{fields.path}: model_type = {kind!r} is not supported ({', '.join(ARCHITECTURES)})"
        )
    architecture, arrays = ARCHITECTURES[kind], stored_arrays(folder)
    config = _model_config(architecture, fields)
    source, target = (
        _present(names, arrays, folder) for names in (architecture.sources, architecture.targets)
    )
    output = architecture.output if architecture.output in arrays else target
    joint = not _differ(arrays, source, target)
    tied = not _differ(arrays, output, target)
    config = replace(config, tie_embeddings=tied, share_embeddings=joint and not tied)
    vocabulary = fields.require("vocab_size", int)
    sizes = (vocabulary, fields.get("decoder_vocab_size", int, vocabulary))
    for name, size in zip((source, target), sizes, strict=True):
        if arrays[name].shape[:1] != (size,):
            raise InputError(
                f"{name} has the shape {list(arrays[name].shape)}, but {fields.path} says that "
                f"there are {size} tokens: save model and tokenizer together, or download both "
                "again"
            )
    entries = {entry.ours: entry for entry in architecture.table(config, joint)}
    model = HubModel(fields, config, *sizes, joint, arrays, entries)
    _check_names(model, {*architecture.sources, *architecture.targets}, folder)
    return model


def _model_config(architecture: Architecture, fields: Fields) -> TransformerConfig:
    """Our settings; errors name the file that they are from."""
    try:
        return architecture.model_config(fields)
    except InputError as error:
        raise fields.named(error) from error


def imported_kind(run: Run) -> str:
    """The kind of an imported model, as its own settings name it."""
    assert run.original is not None
    return str(read_fields(run.original / "config.json").require("model_type", str))


def build(model: HubModel) -> EncoderDecoder:
    """The Linen module of a model."""
    return registry.build(
        model.config, model.src_vocabulary, model.tgt_vocabulary, joint=model.joint
    )


def read_params(model: HubModel) -> Params:
    """The parameters, as float32 NumPy arrays.

    Raises:
      InputError: an array has another shape than the settings say.
    """
    shapes = registry.abstract(build(model))
    sizes = {name: leaf.shape for name, leaf in flat(shapes).items()}
    # The largest first: while it is read, its file is in memory as well.
    order = sorted(sizes, key=lambda name: -math.prod(sizes[name]))
    leaves = {name: _read(model, name, sizes[name]) for name in order}
    return jax.tree.unflatten(jax.tree.structure(shapes), [leaves[name] for name in sizes])


def _read(model: HubModel, ours: str, shape: tuple[int, ...]) -> np.ndarray:
    entry = model.entries[ours]
    name = next((name for name in entry.theirs if name in model.arrays), None)
    if name is None:  # only a bias of the logits may be missing
        return np.zeros(shape, np.float32)
    array = model.arrays[name].read()
    if not np.isfinite(array).all():
        raise InputError(f"{name} has numbers that are not finite in float32: download it again")
    return to_ours(array, shape, entry, name)


def read_fields(path: Path) -> Fields:
    """A JSON file of settings.

    Raises:
      InputError: it is missing or damaged.
    """
    try:
        values: Any = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: it is not a JSON object")
    return Fields(values, str(path))


def _present(names: tuple[str, ...], arrays: Mapping[str, StoredArray], folder: Path) -> str:
    """The first of these names that the files have."""
    for name in names:
        if name in arrays:
            return name
    raise InputError(f"{folder} has no {names[0]}: the model is incomplete")


def _differ(arrays: Mapping[str, StoredArray], one: str, other: str) -> bool:
    """Whether two arrays are not the same.

    Files keep one of the names of a shared matrix, or all of them: so matrices are shared unless
    both are there and differ.
    """
    if one == other:
        return False
    a, b = arrays[one], arrays[other]
    if a.shape != b.shape:
        return True
    rows = a.shape[0]
    blocks = (slice(i, min(i + _ROWS, rows)) for i in range(0, rows, _ROWS))
    return not all(np.array_equal(a.read(block), b.read(block)) for block in blocks)


def _check_names(model: HubModel, embeddings: set[str], folder: Path) -> None:
    """Checks that every parameter is in the files, and that every array is a parameter's."""
    parameters = flat(registry.abstract(build(model)))
    for name in parameters:
        theirs = model.entries[name].theirs
        if name != "logits.bias" and not any(name in model.arrays for name in theirs):
            raise InputError(f"{folder} has no {theirs[0]}: the model is incomplete")
    # Aliases of embeddings were compared already; sines and cosines need not be read.
    computed = {"src_positions.table", "tgt_positions.table"}
    used = embeddings.union(
        *(
            entry.theirs
            for entry in model.entries.values()
            if entry.ours in parameters.keys() | computed
        )
    )
    for name in model.arrays:
        if name not in used and name not in _UNUSED:
            raise InputError(
                f"{folder} has {name}, which no parameter of a {model.fields.values['model_type']} "
                "model is: it would be lost"
            )
