"""Three generations of encoder-decoder in JAX: Seq2Seq, attention, Transformer.

translator = encdec.load("runs/dates")
translator("Donnerstag, 3. Mai 1979").text
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encdec.config import RunConfig
    from encdec.config.families import register
    from encdec.config.models import ModelConfig
    from encdec.config.presets import preset
    from encdec.config.search import EnsembleOptions, SearchOptions
    from encdec.data.corpus import Corpus
    from encdec.inference.ensemble import load_ensemble
    from encdec.inference.evaluate import Evaluation, evaluate
    from encdec.inference.scoring import Scores, score
    from encdec.inference.translation import Translation
    from encdec.inference.translator import Translator, load
    from encdec.interop.export import export_run
    from encdec.interop.import_model import import_model
    from encdec.models.interface import EncoderDecoder
    from encdec.ops.cross_entropy import LogitFactors
    from encdec.search.interface import History, Processor
    from encdec.training.trainer import TrainResult, train
    from encdec.types import Batch, InputError

    __version__: str

__all__ = [
    "Batch",
    "Corpus",
    "EncoderDecoder",
    "EnsembleOptions",
    "Evaluation",
    "History",
    "InputError",
    "LogitFactors",
    "ModelConfig",
    "Processor",
    "RunConfig",
    "Scores",
    "SearchOptions",
    "TrainResult",
    "Translation",
    "Translator",
    "evaluate",
    "export_run",
    "import_model",
    "load",
    "load_ensemble",
    "preset",
    "register",
    "score",
    "train",
]

_HOMES = {
    "Batch": "types",
    "Corpus": "data.corpus",
    "EncoderDecoder": "models.interface",
    "EnsembleOptions": "config.search",
    "Evaluation": "inference.evaluate",
    "History": "search.interface",
    "InputError": "types",
    "LogitFactors": "ops.cross_entropy",
    "ModelConfig": "config.models",
    "Processor": "search.interface",
    "RunConfig": "config",
    "Scores": "inference.scoring",
    "SearchOptions": "config.search",
    "TrainResult": "training.trainer",
    "Translation": "inference.translation",
    "Translator": "inference.translator",
    "evaluate": "inference.evaluate",
    "export_run": "interop.export",
    "import_model": "interop.import_model",
    "load": "inference.translator",
    "load_ensemble": "inference.ensemble",
    "preset": "config.presets",
    "register": "config.families",
    "score": "inference.scoring",
    "train": "training.trainer",
}
"""Where each public name is defined; its module is imported when the name is first used."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("encdec")
        except PackageNotFoundError:  # a clone that is not installed
            return "unknown"
    if name not in _HOMES:
        raise AttributeError(f"module 'encdec' has no attribute {name!r}")
    return getattr(importlib.import_module(f"encdec.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])
