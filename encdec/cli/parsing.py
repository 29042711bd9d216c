"""Arguments as typed dataclasses, by tyro; its errors as one line."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import tyro

from encdec.config import nearest
from encdec.types import InputError

Options = TypeVar("Options")


def parse(
    options: type[Options],
    arguments: Sequence[str],
    prog: str,
    description: str,
    default: Any = None,
) -> Options:
    """Arguments as a dataclass; tyro's boxes become one line.

    Raises:
      InputError: an option is unknown, or its value cannot be used.
    """
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            parsed, unknown = tyro.cli(
                options,
                args=list(arguments),
                prog=prog,
                description=description,
                default=default,
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_unboxed(stderr.getvalue())} ({prog} --help)") from None
    for word in unknown:
        if word.startswith("-"):
            name = word.split("=")[0]
            close = nearest(name.strip("-"), _option_names(options), "--")
            raise InputError(f"unknown option {name}{close}")
    if unknown:
        raise InputError(f"unexpected argument {unknown[0]!r} ({prog} --help)")
    return parsed


def _unboxed(box: str) -> str:
    """The first paragraph inside tyro's box, on one line."""
    words: list[str] = []
    for line in box.splitlines():
        text = line.strip("│╭╰╮╯ ")
        if words and set(text) <= {"─"}:
            break
        if not line.startswith("╭"):
            words.append(text)
    return " ".join(words) or "bad arguments"


def _option_names(options: type[Any]) -> list[str]:
    names = ["help"]
    for spec in fields(options):
        nested: Any = getattr(spec.type, "__origin__", spec.type)
        inner = _option_names(nested)[1:] if hasattr(nested, "__dataclass_fields__") else []
        names += inner or [spec.name.replace("_", "-")]
    return names


def check_batch_tokens(max_batch_tokens: int) -> None:
    """Raises InputError unless a batch may hold something."""
    if max_batch_tokens < 1:
        raise InputError(
            f"max_batch_tokens = {max_batch_tokens} cannot be used: it must be at least 1"
        )
