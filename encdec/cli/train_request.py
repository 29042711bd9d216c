"""What `encdec train` asks for, however it is said."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from encdec.config import DataConfig, RunConfig, TrainingDeviceConfig
from encdec.config.data import CORPUS_FILES


class TrainRequest(NamedTuple):
    """A request to train.

    Attributes:
      config: the settings.
      folder: the run folder.
      devices: the devices to train on.
      init: the folder of the run to begin from; None for random parameters.
    """

    config: RunConfig
    folder: Path
    devices: TrainingDeviceConfig
    init: str | None = None


def value_of(option: str, arguments: list[str]) -> str | None:
    """The value of an option before parsing; None if it is not given.

    The defaults of other options depend on it.
    """
    value = None
    for word, after in itertools.pairwise([*arguments, ""]):
        name, equals, rest = word.partition("=")
        if name.replace("_", "-") == option:
            value = rest if equals else after
    return value


def absolute(data: DataConfig) -> DataConfig:
    """The settings with absolute paths of all files and folders."""
    files: Any = {
        name: tuple(str(Path(file).absolute()) for file in getattr(data, name))
        for name in CORPUS_FILES
    }
    if data.corpus_folder is not None:
        files["corpus_folder"] = str(Path(data.corpus_folder).absolute())
    return replace(data, **files)
