"""Parses command-line arguments into typed dataclasses with tyro; errors become one line.

tyro gets a copy of each dataclass that it can read fast. With the original it would import
typeguard to check defaults of generic types, and read the source of each class several times for
the help of its fields. Together these take longer than all other work of `encdec train --help`.
"""

import ast
import contextlib
import dataclasses
import io
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveTypeInfo

from encdec.cli.parsing_errors import (
    explained,
    refuse_unknown,
    required_options,
    typed_options,
    unboxed,
    unknown_options,
    unwrapped,
)
from encdec.config.checks import LARGEST_INT
from encdec.config.search import SearchOptions
from encdec.types import InputError

Options = TypeVar("Options")


def parse(
    options: type[Options],
    arguments: Sequence[str],
    prog: str,
    description: str,
    default: Options | None = None,
) -> Options:
    """Parses command-line arguments into a dataclass.

    Args:
      options: the dataclass; each field, and each field of a nested dataclass, is an option.
      arguments: the words of the command line after the name of the command.
      prog: the command as the user calls it, for help and errors.
      description: one sentence for the help.
      default: the values of options that are not given; None for the defaults of the fields.

    Raises:
      InputError: an option is unknown, or its value cannot be used.
    """
    _check_given_once(options, arguments)
    with_help = "--help" in arguments or "-h" in arguments
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            parsed, unknown = tyro.cli(
                _readable(options, default, with_help),
                args=list(arguments),
                prog=prog,
                description=description,
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        # What else is wrong may follow from an unknown option.
        refuse_unknown(options, unknown_options(options, arguments), prog)
        said = explained(unboxed(stderr.getvalue()), required_options(options))
        raise InputError(f"{said} ({prog} --help)") from None
    if unknown:
        refuse_unknown(options, [word for word in unknown if word.startswith("-")], prog)
        raise InputError(f"unexpected argument {unknown[0]!r} ({prog} --help)")
    return _instance(options, parsed)


def parse_for_run(
    options: type[Options],
    arguments: Sequence[str],
    prog: str,
    description: str,
    run_of: Callable[[Any], Path | None] = lambda parsed: parsed.run,
) -> Options:
    """Parses as `parse` does; the defaults of the search options are those of the run.

    Args:
      options: the dataclass; it has a field `search`.
      arguments, prog, description: as in `parse`.
      run_of: the run folder among the parsed options; None if there is none.

    Raises:
      InputError: as `parse` does, or the run cannot be opened.
    """
    first: Any = parse(options, arguments, prog, description)
    folder = run_of(first)
    if folder is None:
        return first
    from encdec.runs.run import read_config

    search = read_config(folder).search
    if search == SearchOptions():
        return first
    return parse(options, arguments, prog, description, replace(first, search=search))


def _readable(options: type[Any], default: Any, with_help: bool) -> type[Any]:
    """A copy of a dataclass with the same options, whose fields tyro reads fast.

    Args:
      options: the dataclass.
      default: an instance that holds the defaults; None for the defaults of the fields.
      with_help: whether the docstrings of fields become their help texts.
    """
    hints = typing.get_type_hints(options, include_extras=True)
    docs = _field_docs(options) if with_help else {}
    copies: list[Any] = []
    for field in dataclasses.fields(options):
        value = _default(field) if default is None else getattr(default, field.name)
        hint, *marks = unwrapped(hints[field.name])
        nested = dataclasses.is_dataclass(hint)
        text = docs.get(field.name) or (_first_paragraph(hint.__doc__) if nested else "")
        # A default of nothing is not worth showing; the text says what it means.
        hint_text = "" if value in (None, (), "") else None
        # tyro takes the last of several marks, so the help text in the annotation of a field wins.
        own = tyro.conf.arg(help=text, metavar=_metavar(hint), help_behavior_hint=hint_text)
        marks = [own, *marks]
        if nested:
            inner = None if value is dataclasses.MISSING else value
            hint = _readable(typing.cast(type, hint), inner, with_help)
            copies.append((field.name, Annotated[(hint, *marks)]))
            continue
        if _has_tuple(hint):
            # tyro checks a default against `object` without typeguard.
            marks.append(
                ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(hint, set()))
            )
            hint = object
        elif isinstance(hint, types.UnionType):
            hint = typing.Union[typing.get_args(hint)]  # noqa: UP007  tyro has a fast path for it
        spec: Any = dataclasses.field()
        if value is not dataclasses.MISSING:
            spec = dataclasses.field(default=value)
        copies.append((field.name, Annotated[(hint, *marks)], spec))
    copy = dataclasses.make_dataclass(options.__name__, copies, frozen=True, kw_only=True)
    copy.__doc__ = options.__doc__
    return copy


def _instance(options: type[Options], parsed: Any) -> Options:
    """An instance of the dataclass, from an instance of its readable copy."""
    hints = typing.get_type_hints(options)
    values = {}
    for field in dataclasses.fields(typing.cast(Any, options)):
        value, kind = getattr(parsed, field.name), hints[field.name]
        nested = dataclasses.is_dataclass(kind)
        values[field.name] = _instance(typing.cast(type, kind), value) if nested else value
    return options(**values)


def _default(field: "dataclasses.Field[Any]") -> Any:
    """A field's default, or MISSING."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _first_paragraph(docstring: str | None) -> str:
    return " ".join((docstring or "").split("\n\n")[0].split())


def _metavar(hint: Any) -> str | None:
    """How help texts show the value of an option that may be None; None for other types.

    tyro would show `{None}|INT`, though nobody needs to write None.
    """
    accepted = typing.get_args(hint)
    if types.NoneType not in accepted:
        return None
    return "|".join(map(_shown, (one for one in accepted if one is not types.NoneType)))


def _shown(hint: Any) -> str:
    """How help texts show a value of a type."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if typing.get_origin(hint) is tuple:
        return " ".join("..." if one is Ellipsis else _shown(one) for one in inner)
    return str(hint.__name__).upper()


def _has_tuple(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple or any(map(_has_tuple, typing.get_args(hint)))


def _field_docs(options: type[Any]) -> dict[str, str]:
    """The docstrings below the fields of a dataclass and of its base classes, by field."""
    docs: dict[str, str] = {}
    for kind in reversed(options.__mro__):
        docs |= _module_docs(kind.__module__).get(kind.__name__, {})
    return docs


@cache
def _module_docs(module: str) -> dict[str, dict[str, str]]:
    """The docstrings of fields in a module's classes, by class and field, each as one line."""
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        return {}
    docs: dict[str, dict[str, str]] = {}
    for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            docs[node.name] = {
                field.target.id: " ".join(text.value.value.split())
                for field, text in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            }
    return docs


def _check_given_once(options: type[Any], arguments: Sequence[str]) -> None:
    """Refuses an option of several values that is given again: only its last values would count."""
    for name, hint in typed_options(options):
        times = sum(word.split("=")[0] == f"--{name}" for word in arguments)
        if times > 1 and _has_tuple(hint):
            raise InputError(f"--{name} is given {times} times: give all its values after one")


def check_tsv_columns(columns: tuple[int, int], *, are_read: bool) -> None:
    """Raises InputError if these cannot be columns, or are given where no columns are read."""
    given = f"tsv_columns = {' '.join(map(str, columns))}"
    if min(columns) < 1:
        raise InputError(f"{given} cannot be used: give two columns, counted from 1")
    if columns != (1, 2) and not are_read:
        raise InputError(f"{given} needs a file of columns: give tsv, or leave tsv_columns out")


def check_batch_tokens(max_batch_tokens: int) -> None:
    """Raises InputError unless a batch has room for a token, and their number fits int32."""
    if not 1 <= max_batch_tokens <= LARGEST_INT:
        raise InputError(
            f"max_batch_tokens = {max_batch_tokens} cannot be used: it must be at least 1 and at "
            f"most {LARGEST_INT}"
        )
