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
    "matching {None}|INT": "a whole number",
    "matching {None}|FLOAT": "a number",
}
"""What tyro says of a text that is no number, and what would do."""


def explained(text: str, required: Sequence[str]) -> str:
    """An error of tyro as one line, without what only its programmers understand.

    Args:
      text: the error.
      required: names of the options and arguments that have no default.
    """
    for explain in (_no_choice, _no_numbers, _no_number):
        if said := explain(text):
            return said
    if text.startswith("Missing from "):
        words = text.split()
        missing = [name for name in required if name in words]
        verb = "is" if len(missing) == 1 else "are"
        return f"{' and '.join(missing)} {verb} missing" if missing else text
    return text


def _no_choice(text: str) -> str | None:
    found = re.search(r"invalid choice '(.*)' for argument '([^/']*).*'\. .* one of \((.*)\)", text)
    if found is None:
        return None
    value, option, listed = found.groups()
    # tyro lists the choices of an option that may be left out in any order, and None among them.
    choices = sorted({*re.findall("'([^']*)'", listed)} - {"None"})
    accepts = f"one of {', '.join(choices)}"
    return f"{option} {value!r} cannot be used: it must be {accepts}{nearest(value, choices)}"


def _no_numbers(text: str) -> str | None:
    found = re.match(
        r"Error parsing (\S+): .* arguments:? \[(.*?)\](?: into tuple type tuple\[(.*)\])?", text
    )
    if found is None:
        return None
    option, values, kinds = found.groups()
    accepts = kinds.replace(",", "").upper() if kinds else "numbers"
    return f"{option} {values.replace(',', '')} cannot be used: it must be {accepts}"


def _no_number(text: str) -> str | None:
    option = re.match(r"Error parsing (\S+):", text)
    for says, accepts in _NUMBERS.items():
        if option and says in text:
            value = text.rpartition(": " if ": '" in text else "from ")[2].strip("[].")
            return f"{option[1]} {value} cannot be used: it must be {accepts}"
    return None


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


def required_options(options: type[Any]) -> list[str]:
    """The options and arguments without a default, as the help shows them."""
    hints = typing.get_type_hints(options, include_extras=True)
    names = []
    for field in dataclasses.fields(options):
        if field.default is field.default_factory is dataclasses.MISSING:
            marks = unwrapped(hints[field.name])[1:]
            shown = [name for mark in marks if (name := getattr(mark, "metavar", None))]
            option = f"--{field.name.replace('_', '-')}"
            names.append(shown[0] if shown and _POSITIONAL in marks else option)
    return names


def unboxed(box: str) -> str:
    """The first paragraph inside tyro's box, as one line.

    Where stdout is not UTF-8 the box has hyphens for its lines, and its title in a line of its own.
    """
    lines = box.strip("\n").splitlines()
    if lines and not lines[0].startswith("╭"):
        lines = lines[1:]
    words: list[str] = []
    for line in lines:
        text = line.strip("│╭╰╮╯ ")
        if words and set(text) <= {"─", "-"}:
            break
        if not line.startswith("╭") and set(text) - {"─", "-"}:
            words.append(text)
    return " ".join(words) or "bad arguments"
