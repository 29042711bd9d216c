"""A model in the hub library's format made into a run.

The run has the model's parameters as its best checkpoint at step 0, its tokenizer as vocabularies,
and the options that it generates by. Its folder `original/` keeps the settings and the files of the
tokenizer as they came, for an export in the same format.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from encdec.config import DataConfig, RunConfig, SearchOptions
from encdec.data.pretrained_vocabulary import PretrainedVocabulary
from encdec.data.sources import Pairs
from encdec.files import given_path, write_text
from encdec.interop import hub
from encdec.interop.array_files import StoredArray
from encdec.interop.generation import search_options
from encdec.interop.tokenizer_files import tokenizer_files
from encdec.interop.tokenizers import read_vocabularies
from encdec.parallel.process_memory import keep_less_beside
from encdec.runs import run as runs
from encdec.runs.checkpoints import Checkpoints
from encdec.runs.lock import locked
from encdec.runs.run import Run
from encdec.types import InputError

_SETTINGS = ("config.json", "generation_config.json")
_PEAK = 1.3
"""Memory that an import takes, in sizes of the model in float32."""


def import_model(
    model: str | Path,
    run: str | Path,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    normalize_punctuation: bool = False,
    say: Callable[[str], None] = print,
) -> Run:
    """Makes a run of a model that the hub library saved.

    Args:
      model: its folder, or its name on the hub.
      run: the run folder, which must not exist.
      source_language, target_language: codes that the model knows, such as eng_Latn; None for
        those that its files name.
      normalize_punctuation: whether punctuation is normalized by Moses' rules before the tokenizer
        of a Marian model, as it was in its training; the hub library does not do so.
      say: is called with a line for each thing that is not as in the hub library.

    Raises:
      InputError: a file is missing or damaged, the model is of a kind that is not supported or
        larger than the memory, a language is missing or unknown, or the run folder exists.
    """
    path = given_path("run", run)
    folder = find_folder(given_path("model", model))
    if runs.is_run(folder) and (folder / "checkpoints").is_dir():
        raise InputError(f"{folder} is a run folder, which every command takes as it is")
    _check_free(path)  # before a folder is made
    with locked(path):
        _check_free(path)  # another import may have ended since
        return _import(folder, path, source_language, target_language, normalize_punctuation, say)


def _check_free(path: Path) -> None:
    """Raises InputError unless a run can be made in a folder."""
    if runs.is_run(path) or not runs.is_vacant(path):
        raise InputError(f"{path} is there already: name another run folder (--run)")


def _import(
    folder: Path,
    path: Path,
    source_language: str | None,
    target_language: str | None,
    normalize_punctuation: bool,
    say: Callable[[str], None],
) -> Run:
    """Imports a folder into a run folder that this process has locked."""
    opened = hub.open_folder(folder)
    check_memory(opened.arrays)
    keep_less_beside(sum(4 * array.size for array in opened.arrays.values()))
    vocabularies = read_vocabularies(
        folder, opened.fields, source_language, target_language, normalize_punctuation
    )
    config = run_config(opened, vocabularies, _generation(folder, opened, vocabularies[1], say))
    if kinds := sorted({array.kind for array in opened.arrays.values()} - {"float32"}):
        say(f"{folder}: arrays of {', '.join(kinds)} become float32")
    params = hub.read_params(opened)
    imported = Run(
        path=path,
        config=config,
        corpus=None,
        extra_length=0,
        src_vocabulary=vocabularies[0],
        tgt_vocabulary=vocabularies[1],
        held_out=Pairs([], []),
    )
    with runs.removed_on_error(path):
        with Checkpoints(path) as checkpoints:
            checkpoints.save("best", 0, {"params": params}, {}, copy=False)
            checkpoints.wait()
        original = path / runs.ORIGINAL
        shutil.rmtree(original, ignore_errors=True)  # of a killed command
        original.mkdir()
        write_text(original / hub.NAMES_FILE, json.dumps([*opened.arrays]) + "\n")
        for file in [*(folder / name for name in _SETTINGS), *tokenizer_files(folder)]:
            if file.is_file():
                shutil.copyfile(file, original / file.name)
        runs.create(imported)
        return runs.load(path)


def find_folder(model: str | Path) -> Path:
    """The folder of a model: a local one, or that of a download.

    Raises:
      InputError: it is neither, or the hub cannot be reached.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if folder.exists() or str(model).count("/") != 1 or str(model).startswith((".", "/")):
        raise InputError(
            f"{model} is not a folder: give one that the hub library saved, or a name on the hub "
            "such as Helsinki-NLP/opus-mt-en-de"
        )
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt"]
    try:
        return Path(snapshot_download(str(model), allow_patterns=wanted))
    except Exception as error:  # the library raises errors of many types
        raise InputError(
            f"{model} is not a folder here and cannot be downloaded ({type(error).__name__}): "
            "check the name and the network, or give a folder"
        ) from error


def check_memory(arrays: Mapping[str, StoredArray]) -> None:
    """Raises InputError if the arrays, as float32, are more than the memory that is free."""
    needed = _PEAK * sum(4 * array.size for array in arrays.values())
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:  # what the kernel would free counts too
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):
        pass
    if needed > free:
        raise InputError(
            f"the model needs {needed / 2**30:.1f} GiB of memory to be read, and "
            f"{free / 2**30:.1f} GiB are free: close other programs, or use a larger machine"
        )


def run_config(
    model: hub.HubModel,
    vocabularies: tuple[PretrainedVocabulary, PretrainedVocabulary],
    search: SearchOptions,
) -> RunConfig:
    """The settings of a run of an imported model."""
    longest = model.config.longest_sentence
    limit = DataConfig.max_source_length
    limit = limit if longest is None else min(limit, longest - 1)
    source, target = vocabularies
    to = source if source.language_place == "default" else target
    data = DataConfig(
        source_language=(source.language if to is target else None) or DataConfig.source_language,
        target_language=to.language or DataConfig.target_language,
        vocabulary="pretrained",
        joint_vocabulary=model.joint,
        max_source_length=limit,
        max_target_length=limit,
    )
    return RunConfig(model=model.config, data=data, search=search)


def _generation(
    folder: Path,
    model: hub.HubModel,
    target: PretrainedVocabulary,
    say: Callable[[str], None],
) -> SearchOptions:
    file = folder / "generation_config.json"
    fields = hub.read_fields(file) if file.is_file() else model.fields
    return search_options(
        fields,
        target.specials,
        target.before,
        has_languages=target.language_place == "before",
        say=say,
    )
