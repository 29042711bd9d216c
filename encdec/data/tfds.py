"""Translation corpora of TensorFlow Datasets (TFDS), read without TensorFlow.

`encdec prepare` downloads a corpus once, for which TFDS may need TensorFlow; afterwards its
array_record files are enough. tensorflow_datasets takes long to import, so it is imported only when
a corpus is used.
"""

import contextlib
import difflib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from encdec.data.sources import Pair
from encdec.types import InputError

_CORPUS = re.compile(r"tfds:(?P<name>\w+)(/(?P<config>[\w.+-]+))?(:[\d.*]+)?")
_FORMAT = "array_record"
_MAX_LISTED = 8
"""Names that an error lists."""
_SENTENCES = ("source_sentence", "target_sentence")
"""Columns of BUCC and Tatoeba."""

RowReader = Callable[[Any], Pair | None]
"""A function that takes the pair from a row; None if the row lacks one of the languages."""


@dataclass(frozen=True, eq=False)
class Split:
    """The pairs of one split, a `PairReader`.

    Attributes:
      name: of the corpus and the split, for messages.
      rows: the data source of TFDS, from which rows are read by number.
      read: takes the pair from a row.
      unit: see `PairReader`.
    """

    name: str
    rows: Any
    read: RowReader
    unit: str = "row"

    def __iter__(self) -> Iterator[Pair]:
        for number in range(len(self.rows)):
            try:
                pair = self.read(self.rows[number])
            except (OSError, ValueError, RuntimeError, IndexError) as error:
                raise InputError(
                    f"{self.name}, row {number + 1} cannot be read ({_first_line(error)}): delete "
                    "the corpus and prepare it again"
                ) from error
            if pair is not None:
                yield pair


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the log of TFDS, which says nothing that is not also raised."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@_quiet()
def open_split(
    corpus: str,
    split: str,
    folder: str | None = None,
    languages: tuple[str, str] = ("en", "en"),
    reverse: bool = False,
) -> Split:
    """Opens a split of a prepared corpus; no row is read yet.

    Args:
      corpus: `tfds:NAME` or `tfds:NAME/CONFIG`.
      split: the name of a split, or a part of one such as `train[:10%]`.
      folder: the folder in which TFDS keeps corpora; None for its default.
      languages: source and target language; they matter if the corpus has more than two.
      reverse: whether to translate from the second of two languages to the first.

    Raises:
      InputError: there is no such corpus or split, it is not prepared, or it has no translations.
    """
    builder = _builder(corpus, folder)
    read = _row_reader(corpus, builder.info, languages, reverse)
    try:
        rows = builder.as_data_source(split)
    except (NotImplementedError, ValueError, OSError) as error:
        raise _explain(error, builder, corpus, split, folder) from error
    return Split(f"{corpus}, split {split}", rows, read)


@_quiet()
def splits(corpus: str, folder: str | None = None) -> list[str]:
    """Returns the names of a corpus's splits; before it is prepared, those that TFDS knows.

    Raises:
      InputError: there is no such corpus.
    """
    return list(_builder(corpus, folder).info.splits)


@_quiet()
def prepare(corpus: str, folder: str | None = None) -> Any:
    """Downloads a corpus and writes it as array_record files, unless they exist.

    Returns:
      The DatasetInfo of TFDS; `data_dir` is the folder of the corpus, `splits` are its splits.

    Raises:
      InputError: there is no such corpus, it exists in another format, or the download fails.
    """
    builder = _builder(corpus, folder)
    if builder.is_prepared():
        if _FORMAT not in _formats(builder):
            raise _other_format(builder, corpus)
        return builder.info
    try:
        builder.download_and_prepare(file_format=_FORMAT)
    except ImportError as error:
        raise InputError(
            f"{corpus} needs {error.name or 'TensorFlow'} to be prepared: pip install "
            '"encdec[prepare]" and run this again (training will not need it)'
        ) from error
    except Exception as error:  # network, disk and the corpus's code raise errors of any type
        raise InputError(f"{corpus} cannot be prepared: {_first_line(error)}") from error
    return builder.info


def _builder(corpus: str, folder: str | None) -> Any:
    """The DatasetBuilder of a corpus, prepared or not."""
    parsed = _CORPUS.fullmatch(corpus)
    if parsed is None:
        raise InputError(f"corpus = {corpus!r} cannot be used: say tfds:NAME/CONFIG")
    name, config = parsed["name"], parsed["config"]
    import tensorflow_datasets as tfds
    import tensorflow_datasets.translate  # registers WMT, TED and others

    configs = _configs(name, folder)
    if config is None and len(configs) > 1:
        raise InputError(
            f"{corpus} has several configurations: name one, as in {corpus}/{configs[0]} "
            f"({_listed(configs)})"
        )
    try:
        return tfds.builder(corpus.removeprefix("tfds:"), data_dir=folder)
    except (ValueError, AssertionError, OSError) as error:  # an unknown name is a ValueError
        if config is not None and configs and config not in configs:
            close = difflib.get_close_matches(config, configs, n=_MAX_LISTED, cutoff=0.4)
            raise InputError(
                f"tfds:{name} has no configuration {config!r}: there is "
                f"{_listed([*close, *(c for c in configs if c not in close)])}"
            ) from error
        if name in (known := tfds.list_builders(with_community_datasets=False)):
            raise InputError(f"{corpus} cannot be opened: {_first_line(error)}") from error
        raise _unknown(corpus, name, known) from error


def _configs(name: str, folder: str | None) -> list[str]:
    """The configurations in the corpus's code or, if TFDS has no code for it, in its folder."""
    import tensorflow_datasets as tfds

    try:
        return list(tfds.builder_cls(name).builder_configs)
    except ValueError:
        place = Path(folder or tfds.core.constants.DATA_DIR).expanduser() / name
        paths = place.iterdir() if place.is_dir() else ()
        # Not hidden files, and not versions: a corpus of one configuration has these in its folder.
        return sorted(path.name for path in paths if re.match(r"(?!\.|\d+\.\d+\.\d+$)", path.name))


def _unknown(corpus: str, name: str, known: list[str]) -> InputError:
    """The error of a name that TFDS does not know, with similar names."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = " or ".join(f"tfds:{one}" for one in close)
    if not close:
        hint = "one of " + _listed([n for n in known if n.endswith("_translate")])
    return InputError(
        f"{corpus} is unknown to TensorFlow Datasets: did you mean {hint}? (a corpus of your own "
        "needs --corpus-folder)"
    )


def _row_reader(corpus: str, info: Any, languages: tuple[str, str], reverse: bool) -> RowReader:
    """Chooses how to take a pair from a row, by the features of the corpus."""
    import tensorflow_datasets as tfds

    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    # TED and others: one feature that holds texts in some of many languages.
    for name, feature in features.items():
        if isinstance(feature, tfds.features.TranslationVariableLanguages):
            _check_languages(corpus, feature.languages, languages, reverse)
            return partial(_from_many, name, languages)
    # A column for each of more than two languages.
    texts = sorted(n for n in features if isinstance(features[n], tfds.features.Text))
    if isinstance(features, tfds.features.Translation) and len(texts) > 2:
        _check_languages(corpus, texts, languages, reverse)
        return partial(_from_columns, languages)
    # Two columns of text, in the order of the corpus if it says one.
    for columns in (info.supervised_keys, texts, _SENTENCES):
        if columns and len(columns) == 2 and all(column in texts for column in columns):
            source, target = columns[::-1] if reverse else columns
            return partial(_from_columns, (source, target))
    raise InputError(
        f"{corpus} is not a translation corpus: it should have two columns of text, but has "
        f"{_listed(texts) if texts else 'none'}"
    )


def _check_languages(
    corpus: str, known: Sequence[str] | None, languages: tuple[str, str], reverse: bool
) -> None:
    """Raises InputError unless a corpus of many languages has these two; `known` is its list."""
    source, target = languages
    if source == target or not set(languages) <= set(known or languages):
        among = f" ({_listed(known, len(known))})" if known else ""
        raise InputError(
            f"{corpus} has many languages and not {source} to {target}: name two of them by "
            f"source_language and target_language{among}"
        )
    if reverse:
        raise InputError(
            f"reverse is for a corpus of two languages, and {corpus} has more: exchange "
            "source_language and target_language"
        )


def _from_columns(columns: tuple[str, str], row: Any) -> Pair:
    source, target = columns
    return _text(row[source]), _text(row[target])


def _from_many(column: str, languages: tuple[str, str], row: Any) -> Pair | None:
    """The first text in each of the two languages; None if the row lacks one."""
    present = [_text(language) for language in row[column]["language"]]
    if not set(languages) <= set(present):
        return None
    source, target = (row[column]["translation"][present.index(one)] for one in languages)
    return _text(source), _text(target)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _explain(
    error: Exception, builder: Any, corpus: str, split: str, folder: str | None
) -> InputError:
    """The error of a split that cannot be opened, with its reason."""
    if not builder.is_prepared():
        where = f" --corpus-folder {folder}" if folder else ""
        return InputError(
            f"{corpus} is not prepared in {builder.data_dir}: run `encdec prepare {corpus}{where}` "
            'once (for most corpora after pip install "encdec[prepare]")'
        )
    if _FORMAT not in _formats(builder):
        return _other_format(builder, corpus)
    splits = list(builder.info.splits)
    asked = [part.split("[")[0].strip() for part in split.split("+")]
    if unknown := [name for name in asked if name not in splits]:
        return InputError(f"{corpus} has no split {unknown[0]!r}: there is {_listed(splits)}")
    return InputError(f"split {split!r} of {corpus} cannot be read: {_first_line(error)}")


def _other_format(builder: Any, corpus: str) -> InputError:
    return InputError(
        f"{corpus} is in {builder.data_dir} as {_listed(sorted(_formats(builder)))}, which only "
        f"TensorFlow reads: prepare it in another folder, `encdec prepare {corpus} "
        "--corpus-folder FOLDER`"
    )


def _formats(builder: Any) -> set[str]:
    return {kind.value for kind in builder.info.available_file_formats()}


def _listed(names: Sequence[str], most: int = _MAX_LISTED) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
