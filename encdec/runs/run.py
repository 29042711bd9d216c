"""A run is a folder that holds all that translation needs, and all measurements.

    config.json       settings, limit of translation length, digests of corpus and vocabularies,
                      checksums of itself and of heldout.jsonl
    source.vocab      vocabularies of preprocessed text; a joint vocabulary is in both files
    target.vocab
    heldout.jsonl     the sentence pairs that the run is evaluated on
    checkpoints/      see `encdec.runs.checkpoints`
    lock              of the process that writes the run; see `encdec.runs.lock`
    metrics.jsonl     measurements, one JSON object per line
    tensorboard/      the same measurements as curves
    attention.png     attention of one translation, if the model has any
    original/         of an imported model: its settings and tokenizer files as they came

The folder can be moved and copied; it does not depend on the files of the corpus.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from encdec import config as configs
from encdec.config import RunConfig
from encdec.config.data import CORPUS_FILES
from encdec.data import pretrained_vocabulary, vocabulary
from encdec.data.pretrained_vocabulary import PretrainedVocabulary
from encdec.data.sources import Pairs, is_pair
from encdec.data.text import preprocessings, with_preprocessing
from encdec.data.vocabulary import Vocabulary
from encdec.files import given_path, leftovers, parse_json, write_text
from encdec.runs import config_file, lock
from encdec.types import InputError

ORIGINAL = "original"
"""The folder in a run of an imported model with its own settings and tokenizer files."""

_FILES = ("source.vocab", "target.vocab", "heldout.jsonl")
"""The files that `create` writes before `config.json`."""

_PLACES = (*CORPUS_FILES, "corpus_folder")
"""The settings that say where the corpus is."""


@dataclass(frozen=True)
class Run:
    """The content of a run folder, without checkpoints and measurements.

    Attributes:
      path: the folder.
      config: all settings.
      corpus: SHA-256 of the training and validation text; None for a run trained on batches.
      extra_length: a translation of S source tokens has at most 2 * S + extra_length tokens; see
        `encdec.data.pipeline.extra_length`.
      src_vocabulary, tgt_vocabulary: with the preprocessing that the settings describe.
      held_out: sentence pairs to evaluate on; the model is not trained on them.
      init: SHA-256 of the parameters that training began with; None if they were random.
      original: the folder of an imported model's own files; None for other runs.
    """

    path: Path
    config: RunConfig
    corpus: str | None
    extra_length: int
    src_vocabulary: Vocabulary
    tgt_vocabulary: Vocabulary
    held_out: Pairs
    init: str | None = None
    original: Path | None = None

    @property
    def is_import(self) -> bool:
        """Whether it is an imported model as it came, which was not trained here."""
        return self.original is not None and self.corpus is None and self.init is None


def create(run: Run) -> None:
    """Writes a new run folder.

    `config.json` is written last: a folder without it is not a complete run.

    Raises:
      InputError: the folder cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        vocabulary.save(run.src_vocabulary, run.path / "source.vocab")
        vocabulary.save(run.tgt_vocabulary, run.path / "target.vocab")
        write_text(run.path / "heldout.jsonl", _held_out_text(run.held_out))
        if run.original and run.original != run.path / ORIGINAL:
            shutil.copytree(run.original, run.path / ORIGINAL, dirs_exist_ok=True)
        _write_config(run)
    except OSError as error:
        raise InputError(f"run folder {run.path} cannot be written: {error.strerror}") from error


@contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Removes a new run from its folder if the block ends before anything was trained.

    That is what `create` and `Checkpoints` wrote; other files stay.
    """
    try:
        yield
    except BaseException:
        # `config.json` first: without it, what is left is no run.
        for name in ("config.json", *_FILES):
            (path / name).unlink(missing_ok=True)
        for name in (ORIGINAL, "checkpoints"):
            shutil.rmtree(path / name, ignore_errors=True)
        raise


def is_vacant(path: Path) -> bool:
    """Whether a run can be created in a folder: it holds leftovers of `create`, or a lock."""
    if not path.is_dir():
        return not path.exists()
    files = {path / name for name in (*_FILES, lock.FILE)}
    files.add(path / ORIGINAL)
    temporary = {file for target in (*files, path / "config.json") for file in leftovers(target)}
    return set(path.iterdir()) <= files | temporary


def _check_name(path: Path) -> None:
    """Raises InputError if the name of a run folder, or of one that it is in, is not UTF-8.

    Checkpoints could not be written there, nor read.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"run folder {path} cannot be used: its path is not UTF-8; rename it"
        ) from error


def check_folder(path: Path) -> None:
    """Raises InputError if a folder holds something else than a run, or cannot be one."""
    _check_name(path)
    try:
        is_usable = is_run(path) or is_vacant(path)
    except OSError as error:  # its name is too long, say
        raise InputError(f"run folder {path} cannot be used: {error.strerror}") from error
    if not is_usable:
        raise InputError(f"{path} exists and is not a run folder: name another one (--run)")


def _write_config(run: Run) -> None:
    fields = {
        "corpus": run.corpus,
        "extra_length": run.extra_length,
        "vocabularies": [vocabulary.digest(v) for v in (run.src_vocabulary, run.tgt_vocabulary)],
        "init": run.init,
        "config": configs.to_json(run.config),
    }
    of_files = {"heldout.jsonl": config_file.checksum(_held_out_text(run.held_out))}
    config_file.write(run.path / "config.json", fields, of_files)


def _held_out_text(pairs: Pairs) -> str:
    rows = [json.dumps(pair, ensure_ascii=False) for pair in zip(*pairs, strict=True)]
    return "".join(row + "\n" for row in rows)


def update(run: Run, wanted: RunConfig) -> Run:
    """Writes what may differ from the settings of a run, see `check_same`; returns the new run."""
    training = replace(run.config.training, max_steps=wanted.training.max_steps)
    places: Any = {name: getattr(wanted.data, name) for name in _PLACES}
    data = replace(run.config.data, **places)
    run = replace(run, config=replace(run.config, training=training, data=data))
    _write_config(run)
    return run


def is_run(path: Path) -> bool:
    """Whether a folder is a run folder."""
    return (path / "config.json").is_file()


def run_folder_of(path: Path) -> Path | None:
    """The run folder that a file is in, at any depth; None if it is in none."""
    folders = path.resolve().parents
    return next((f for f in folders if is_run(f) and (f / "source.vocab").is_file()), None)


def load(path: str | Path) -> Run:
    """Reads a run folder.

    Raises:
      InputError: it is not a run folder, is damaged, or has the format of another version.
    """
    path = given_path("the run folder", path)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder: give the run folder that `encdec train` printed")
    if not is_run(path):
        raise InputError(f"{path} is not a run folder: it has no config.json")
    _check_name(path)
    tree, config = config_file.read(path / "config.json")
    held_out = _read_held_out(path / "heldout.jsonl", tree.get("checksums", {}))
    files = (path / name for name in ("source.vocab", "target.vocab"))
    source, target = map(vocabulary.load, files, tree["vocabularies"])
    before_source, before_target = preprocessings(config.data)
    return Run(
        path=path,
        config=config,
        corpus=tree["corpus"],
        extra_length=tree["extra_length"],
        src_vocabulary=with_preprocessing(source, before_source),
        tgt_vocabulary=with_preprocessing(target, before_target),
        held_out=held_out,
        init=tree["init"],
        original=path / ORIGINAL if (path / ORIGINAL).is_dir() else None,
    )


def _read_held_out(path: Path, checksums: dict[str, str]) -> Pairs:
    """The pairs to evaluate on, checked against what the run began with."""
    try:
        text = path.read_text(encoding="utf-8")
        pairs = [parse_json(line) for line in text.split("\n") if line]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    for number, pair in enumerate(pairs, 1):
        if not is_pair(pair):
            raise InputError(f"{path} is damaged: its pair {number} is not one of two texts")
    held_out = Pairs([source for source, _ in pairs], [target for _, target in pairs])
    config_file.check_checksum(path, text, checksums)
    return held_out


def with_languages(run: Run, source: str | None, target: str | None) -> Run:
    """The run for other languages of its model; None leaves that of a side.

    Raises:
      InputError: the model does not know a language, or the run has none to choose from.
    """
    of_source, of_target = run.src_vocabulary, run.tgt_vocabulary
    if not (
        isinstance(of_source, PretrainedVocabulary) and isinstance(of_target, PretrainedVocabulary)
    ):
        raise InputError(f"{run.path} is not a run of a model with languages to choose from")
    of_source, of_target = pretrained_vocabulary.with_languages(
        of_source, of_target, source, target
    )
    data = replace(
        run.config.data,
        source_language=source or run.config.data.source_language,
        target_language=target or run.config.data.target_language,
    )
    return replace(
        run,
        config=replace(run.config, data=data),
        src_vocabulary=of_source,
        tgt_vocabulary=of_target,
    )


def read_config(path: Path) -> RunConfig:
    """The settings of a run, of whose files only they are read; raises InputError as `load`."""
    if not is_run(path):
        return load(path).config  # which says what is wrong
    return config_file.read(path / "config.json")[1]


def check_max_steps(run: Run, max_steps: int) -> None:
    """Raises InputError if a run cannot be resumed with this `max_steps`."""
    training = run.config.training
    if max_steps != training.max_steps and training.depends_on_max_steps:
        has_corpus = run.config.data.has_corpus
        start = f"--init-from {run.path} --run NEW"
        start = f"{start}` with its corpus" if has_corpus else f"dates {start}`"
        raise InputError(
            f"max_steps of {run.path} cannot become {max_steps}: its schedule ends at "
            f"{training.max_steps}. Begin a new run from its parameters, `encdec train {start}"
        )


def check_same(run: Run, wanted: RunConfig, corpus: str | None) -> None:
    """Checks that a run can be resumed with these settings and this corpus.

    `max_steps` may differ, unless the schedule depends on it; so may the files of the corpus, if
    their text is the same.

    Raises:
      InputError: another setting differs, or the corpus does.
    """
    if run.is_import:
        raise InputError(
            f"{run.path} is an imported model: begin a run from it, `encdec train --init-from "
            f"{run.path} --run ANOTHER`"
        )
    for place, (has, asks) in _differences(run.config, wanted).items():
        if place == "training.max_steps":
            check_max_steps(run, asks)
        raise InputError(
            f"{run.path} holds a run with {_option(place)} = {has!r}, not {asks!r}: resume it as "
            f"it is by `encdec train --resume {run.path} [--max-steps N]`, or give a new run "
            "another folder by --run"
        )
    if run.corpus == corpus:
        return
    another = "give a new run another folder (--run)"
    if run.corpus is None:
        raise InputError(
            f"{run.path} was trained on batches from Python: resume it by passing them to "
            f"encdec.train; {another}"
        )
    changed = "the text has changed since, or pairs were passed to encdec.train from Python"
    raise InputError(f"{run.path} was trained on another corpus ({changed}): {another}")


def _differences(has: RunConfig, asks: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The fields in which two settings differ, by their places, each with both values."""
    old, new = _flat(configs.to_json(has)), _flat(configs.to_json(asks))
    if not asks.training.depends_on_max_steps:
        old.pop("training.max_steps"), new.pop("training.max_steps")
    for name in _PLACES:  # the corpus itself is compared
        old.pop(f"data.{name}"), new.pop(f"data.{name}")
    # It may have moved: its parameters are compared.
    old.pop("fine_tuning.init_from"), new.pop("fine_tuning.init_from")
    names = [*new, *(old.keys() - new.keys())]
    return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}


def _option(place: str) -> str:
    """What a person calls the setting at a place."""
    part, _, name = place.rpartition(".")
    return "model" if place == "model.kind" else place if part == "search" else name


def _flat(tree: dict[str, Any], start: str = "") -> dict[str, Any]:
    """The fields of nested settings by their places, such as `model.width`.

    Fields of two parts may have one name: those of a caller's own model, or the seed of the search.
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        place = start + name
        flat |= _flat(value, f"{place}.") if isinstance(value, dict) else {place: value}
    return flat
