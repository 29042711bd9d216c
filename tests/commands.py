"""Runs a command in this process; what it did, and that it refused."""

from typing import NamedTuple

import jax

from encdec.cli import main as cli


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


def outcome(read, *arguments: object) -> Outcome:
    """Runs a command; `read` gives what it wrote to stdout and stderr."""
    code = 0
    # Optax's Adam relies on promotion.
    with jax.numpy_dtype_promotion("standard"):
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    out, err = read()
    return Outcome(code, out.decode(), err.decode())


def refused(found: Outcome, *parts: str) -> None:
    """Exit code 2 and one line on stderr that says it all."""
    lines = found.err.splitlines()
    assert (found.code, found.out, len(lines)) == (2, "", 1), found
    assert lines[0].startswith("encdec: error: ")
    for part in parts:
        assert part in lines[0]
