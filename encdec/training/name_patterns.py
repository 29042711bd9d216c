"""Patterns that choose parameters by their dotted names."""

import fnmatch
from collections.abc import Iterable, Sequence

from encdec.config import nearest
from encdec.types import InputError

_BIASES = ("bias", "bq", "bk", "bv", "bo")


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by its dotted name; those of attention are [H, K]."""
    return name.rsplit(".", 1)[-1] in _BIASES


def match(
    field: str, patterns: Sequence[str], names: Iterable[str], what: str = "parameter"
) -> set[str]:
    """The names that match any of the patterns (`*`, `?` and `[...]`; `*` matches dots too).

    Args:
      field: the option that the patterns are from, for errors.
      patterns: the patterns.
      names: the dotted names.
      what: the noun for a name, for errors.

    Raises:
      InputError: a pattern matches no name; the error has the nearest names.
    """
    names = list(names)
    matched: set[str] = set()
    for pattern in patterns:
        of_pattern = fnmatch.filter(names, pattern)
        if not of_pattern:
            raise InputError(
                f"{field} = {pattern!r} matches no {what}{_nearest_names(pattern, names)} "
                f"(names begin with {', '.join(sorted({name.split('.')[0] for name in names}))})"
            )
        matched |= set(of_pattern)
    return matched


def _nearest_names(pattern: str, names: list[str]) -> str:
    """`; did you mean X?` with a name, or a beginning of names followed by `*`."""
    parts = [name.split(".") for name in names]
    beginnings = {".".join(p[:n]) + "*" for p in parts for n in range(1, len(p))}
    return nearest(pattern, sorted(beginnings) + names)
