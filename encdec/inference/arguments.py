"""Checks of what a caller passes: an error names the argument, and comes before any work."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any

from encdec.config.search import SearchOptions
from encdec.files import shortened
from encdec.types import InputError


def text_list(texts: Any) -> list[str]:
    """The texts that a caller passes, as a list.

    Raises:
      TypeError: texts is a single string.
      InputError: it is no iterable, or has something else than a str; bytes are not decoded.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be several strings: for one, call translator(text)")
    if not isinstance(texts, Iterable):
        raise InputError(f"texts is a {type(texts).__name__}: give a list of str")
    several = list(texts)
    for index, text in enumerate(several):
        if not isinstance(text, str):
            raise InputError(
                f"texts has {shortened(text)} at index {index}, a {type(text).__name__}: give only "
                "str"
            )
    return several


def check_translator(translator: Any) -> None:
    """Raises InputError unless it is a translator, which has a run."""
    if not hasattr(translator, "run"):
        raise InputError(
            f"the translator is a {type(translator).__name__}: encdec.load(folder) makes one"
        )


def check_search(options: Any, name: str = "options") -> None:
    """Raises InputError unless options are SearchOptions, or None."""
    if options is not None and not isinstance(options, SearchOptions):
        raise InputError(
            f"{name} = {shortened(options)} is a {type(options).__name__}: give "
            "encdec.SearchOptions, such as encdec.SearchOptions(beam=5)"
        )


def given_integer(name: str, value: Any, least: int = 1) -> int:
    """The integer, of Python or NumPy, that a caller passes as `name`.

    Raises:
      InputError: it is none, or is below `least`.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(
            f"{name} = {shortened(value)} cannot be used: it must be an integer of at least {least}"
        )
    return int(value)
