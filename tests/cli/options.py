"""The options that commands have."""

import importlib
import keyword
from collections.abc import Iterator
from typing import Any

import pytest

from encdec.cli.main import COMMANDS
from encdec.cli.parsing_errors import typed_options


class _Seen(Exception):  # noqa: N818  it ends a command, and is no error
    """The options that a command has."""


def options_of_all_commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str, Any]]:
    """A command, an option that it has, and the option's type; each option once."""
    known: set[str] = set()

    def see(options: Any, *_: Any, **__: Any) -> None:
        raise _Seen([*typed_options(options)])

    for command in COMMANDS:
        module = importlib.import_module(
            f"encdec.cli.{command}_" if keyword.iskeyword(command) else f"encdec.cli.{command}"
        )
        with monkeypatch.context() as patch:
            for name in ("parse", "parse_for_run"):
                if hasattr(module, name):
                    patch.setattr(module, name, see)
            try:
                module.run([])
            except _Seen as seen:
                yield from ((command, n, kind) for n, kind in seen.args[0] if n not in known)
                known.update(name for name, _ in seen.args[0])
