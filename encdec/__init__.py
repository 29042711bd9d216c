"""Three generations of encoder-decoder in JAX: Seq2Seq, attention, Transformer.

translator = encdec.load("runs/dates")
translator("Donnerstag, 3. Mai 1979").text
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encdec.inference.translator import Translation, Translator, load
    from encdec.search.options import SearchOptions

__all__ = ["SearchOptions", "Translation", "Translator", "load"]

_HOMES = {
    "SearchOptions": "search.options",
    "Translation": "inference.translator",
    "Translator": "inference.translator",
    "load": "inference.translator",
}
"""Where each public name is defined; its module is imported when the name is first used."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'encdec' has no attribute {name!r}")
    return getattr(importlib.import_module(f"encdec.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
