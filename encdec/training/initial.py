"""Initial parameters that are not random: those of another run, or given by the caller."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from encdec.config import RunConfig
from encdec.config.fine_tuning import check_model_matches
from encdec.data.text import PreprocessedVocabulary, preprocessings, with_preprocessing
from encdec.data.vocabulary import Vocabulary
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.checkpoints import flat
from encdec.runs.parameters import best_params, digest
from encdec.runs.run import Run
from encdec.types import InputError, Params


class Initial(NamedTuple):
    """The parameters and vocabularies that a new run begins with.

    Attributes:
      params: float32 pytree: the parameters before the first step, as on a single device.
      vocabularies: the source and target vocabulary of these parameters, whose text is prepared as
        the settings of the new run say; None to build vocabularies from the corpus.
      original: the folder of an imported model's own files, which the new run gets too.
    """

    params: Params
    vocabularies: tuple[Vocabulary, Vocabulary] | None = None
    original: Path | None = None


Init = Params | Initial | Run | str | Path
"""Parameters, without or with vocabularies, or a run or its folder."""


def name_origin(config: RunConfig, init: Init | None) -> RunConfig:
    """Returns the settings; if `init` is a run, they name it as `fine_tuning.init_from`.

    Raises:
      InputError: the settings name another run, or the run does not exist or has another model or
        vocabulary.
    """
    named = config.fine_tuning.init_from
    if init is None:
        return _with_origin(config, named) if named else config
    if not isinstance(init, Run | str | Path):
        if named:
            raise InputError(f"init passed and init_from = {named!r} given: give one of the two")
        return config
    origin = init if isinstance(init, Run) else runs.load(init)
    path = str(origin.path.absolute())
    if named and str(Path(named).absolute()) != path:
        raise InputError(f"init = {path} passed and init_from = {named!r} given: give one of them")
    check_model_matches(origin.config, config, path)
    return _with_origin(config, path)


def _with_origin(config: RunConfig, path: str) -> RunConfig:
    path = str(Path(path).absolute())
    return replace(config, fine_tuning=replace(config.fine_tuning, init_from=path))


def read_initial(config: RunConfig, init: Init | None, folder: Path) -> Initial | None:
    """Reads the initial parameters of a run; None if they are random, or if it is resumed and the
    settings name no other run than those that it has.

    Args:
      config: settings from `name_origin`.
      init: the value that the caller passed.
      folder: the run folder, which may not exist yet.

    Raises:
      InputError: the run to begin from cannot be used, or low-rank additions would be added to
        random parameters.
    """
    named = config.fine_tuning.init_from
    is_resumed = runs.is_run(folder) and bool(checkpoints.steps(folder, "latest"))
    if init is None and is_resumed:
        begun = runs.read_config(folder).fine_tuning.init_from
        if named in (None, begun):
            return None
    if isinstance(init, Initial):
        return init._replace(vocabularies=_preprocessed(config, init.vocabularies))
    if init is not None and not isinstance(init, Run | str | Path):
        return Initial(init)
    if named:
        return _of_run(config, named)
    if config.fine_tuning.lora_rank:
        raise InputError(
            "lora_rank trains additions to trained parameters, but these would be random: name a "
            "run to begin from with --init-from (init in Python)"
        )
    return None


def _of_run(config: RunConfig, folder: str) -> Initial:
    """A run's best parameters and vocabularies, with the preprocessing of the new run."""
    origin = runs.load(folder)
    check_model_matches(origin.config, config, folder)
    params, _ = best_params(origin)
    has, asks = (
        (of.data.source_language, of.data.target_language) for of in (origin.config, config)
    )
    if config.data.vocabulary == "pretrained" and has != asks:
        # A language that stays is left as it is: Marian's have no source language to choose.
        changed = (new if new != old else None for old, new in zip(has, asks, strict=True))
        origin = runs.with_languages(origin, *changed)
    vocabularies = _preprocessed(config, (origin.src_vocabulary, origin.tgt_vocabulary))
    return Initial(params, vocabularies, origin.original)


def _preprocessed(
    config: RunConfig, vocabularies: tuple[Vocabulary, Vocabulary] | None
) -> tuple[Vocabulary, Vocabulary] | None:
    """Vocabularies of text that is prepared as the settings say, as the run opens them later."""
    if vocabularies is None:
        return None
    source, target = (
        with_preprocessing(v.vocabulary if isinstance(v, PreprocessedVocabulary) else v, way)
        for v, way in zip(vocabularies, preprocessings(config.data), strict=True)
    )
    return source, target


def check_same_start(run: Run, initial: Initial | None) -> None:
    """Raises InputError if a run that is resumed began with other parameters.

    Without a checkpoint the parameters must be given again.

    Args:
      run: the run to resume.
      initial: the initial parameters that the caller gave, or None.
    """
    if initial is None:
        if run.init and not checkpoints.steps(run.path, "latest"):
            raise InputError(
                f"{run.path} has no checkpoint yet: pass its initial parameters again, as init"
            )
    elif run.init != digest(initial.params):
        began = "with other parameters" if run.init else "with random parameters"
        raise InputError(
            f"{run.path} began {began}: to resume it as it is, `encdec train --resume {run.path}` "
            "(no init in Python); to begin again, name another run folder (--run)"
        )


def check_params(params: Params, expected: Params) -> None:
    """Raises InputError unless parameters have the names, shapes and dtypes of the model.

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
        raise InputError(f"init has a parameter {min(unknown)}, which the model does not have")


def _shape(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype)}{list(leaf.shape)}" if hasattr(leaf, "shape") else repr(leaf)
