"""The options of a command by name, and one line for what is wrong with a command line."""

import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from encdec.config.checks import nearest
from encdec.types import InputError


def unwrapped(hint: Any) -> tuple[Any, ...]:
    """A type and the marks that `Annotated` adds to it."""
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)


def typed_options(options: type[Any], *, include_extras: bool = False) -> Iterator[tuple[str, Any]]:
    """The name and the type of each option, with the marks of `Annotated` if asked for."""
    for name, hint in typing.get_type_hints(options, include_extras=include_extras).items():
        kind = unwrapped(hint)[0]
        if dataclasses.is_dataclass(kind):
            yield from typed_options(typing.cast(type, kind), include_extras=include_extras)
        else:
            yield name.replace("_", "-"), hint


_NUMBERS = {
    "int() with base 10": "a whole number",
    "convert string to float": "a number",
    "matching INT|FLOAT": "a number",
}
"""What Python says of a text that is no number, and what would do."""


def explained(text: str) -> str:
    """An error of tyro, without Python's own words for a text that is no number."""
    pattern = r"Error parsing (\S+): .* arguments \[(.*)\] into tuple type tuple\[(.*)\]"
    several = re.match(pattern, text)
    if several:
        option, values, kinds = several.groups()
        values, kinds = values.replace(",", ""), kinds.replace(",", "").upper()
        return f"{option} {values} cannot be used: it must be {kinds}"
    one = re.match(r"Error parsing (\S+):", text)
    for says, accepts in _NUMBERS.items():
        if one and says in text:
            value = text.rpartition(": " if ": '" in text else "from ")[2].strip("[].")
            return f"{one[1]} {value} cannot be used: it must be {accepts}"
    return text


def unknown_options(options: type[Any], arguments: Sequence[str]) -> list[str]:
    """The words of the command line that look like options and are none."""
    marked = list(typed_options(options, include_extras=True))
    aliases = [
        alias.lstrip("-")
        for _, hint in marked
        for mark in unwrapped(hint)[1:]
        for alias in getattr(mark, "aliases", None) or ()
    ]
    known = {"", "help", *(name for name, _ in marked), *aliases}
    known |= {f"no-{name}" for name in known}
    names = [word.split("=")[0].removeprefix("--").replace("_", "-") for word in arguments]
    return [
        word
        for word, name in zip(arguments, names, strict=True)
        if word.startswith("--") and name not in known
    ]


_FEW = 10
"""The most options that an error lists."""


def refuse_unknown(options: type[Any], words: Sequence[str], prog: str) -> None:
    """Raises InputError for the first of these words, which are unknown options."""
    for word in words:
        name, known = word.split("=")[0], option_names(options)
        close = nearest(name.strip("-").replace("_", "-"), known, "--")
        few = ", ".join(f"--{one}" for one in known) if len(known) <= _FEW else ""
        there_are = f" ({few or f'{prog} --help lists all'})"
        raise InputError(f"unknown option {name}{close or there_are}")


_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]
"""The mark of an argument that is no option."""


def option_names(options: type[Any]) -> list[str]:
    """The names of all options, with hyphens between words and without leading dashes."""
    marked = typed_options(options, include_extras=True)
    return ["help", *(name for name, hint in marked if _POSITIONAL not in unwrapped(hint))]


def unboxed(box: str) -> str:
    """The first paragraph inside tyro's box, as one line."""
    words: list[str] = []
    for line in box.splitlines():
        text = line.strip("│╭╰╮╯ ")
        if words and set(text) <= {"─"}:
            break
        if not line.startswith("╭"):
            words.append(text)
    return " ".join(words) or "bad arguments"
