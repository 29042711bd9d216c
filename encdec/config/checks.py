"""What the settings' own checks are made of: each names the field and what it accepts."""

import dataclasses
import difflib
import typing
from typing import Any, Literal

from encdec.types import InputError


def require(ok: bool, owner: object, name: str, accepts: str) -> None:
    """Refuses a field's value, naming the field and what it accepts, unless it is fine."""
    if not ok:
        value = getattr(owner, name)
        raise InputError(f"{name} = {value!r} cannot be used: it must be {accepts}")


def check_literals(owner: Any) -> None:
    """Refuses a value that the field's Literal does not list, with the nearest that it does."""
    hints = typing.get_type_hints(type(owner))
    for spec in dataclasses.fields(owner):
        hint = hints[spec.name]
        if typing.get_origin(hint) is Literal:
            accepts = "one of " + ", ".join(map(str, typing.get_args(hint)))
            require(getattr(owner, spec.name) in typing.get_args(hint), owner, spec.name, accepts)


def check_ranges(owner: Any, *, positive: str = "", fractions: str = "") -> None:
    """Refuses what is below 1, and shares (None is fine) that are not in [0, 1)."""
    for name in positive.split():
        require(getattr(owner, name) >= 1, owner, name, "at least 1")
    for name in fractions.split():
        value = getattr(owner, name)
        require(value is None or 0 <= value < 1, owner, name, "at least 0 and below 1")


def nearest(word: str, options: typing.Iterable[str], prefix: str = "") -> str:
    """`; did you mean X?` with the option closest to the word, behind a prefix, or nothing."""
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
