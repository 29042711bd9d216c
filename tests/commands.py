"""Runs commands in this process, and checks that a command was refused."""

from typing import NamedTuple

import jax

from encdec.cli import main as cli


class Outcome(NamedTuple):
    """The exit code of a command, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


def outcome(read, *arguments: object) -> Outcome:
    """Runs a command; `read` returns what was written to stdout and stderr, as bytes."""
    code = 0
    # Optax's Adam relies on promotion.
    with jax.numpy_dtype_promotion("standard"):
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    out, err = read()
    return Outcome(code, out.decode(), err.decode())


def refused(outcome: Outcome, *parts: str) -> None:
    """Asserts exit code 2, no output, and one line on stderr that contains all parts."""
    lines = outcome.err.splitlines()
    assert (outcome.code, outcome.out, len(lines)) == (2, "", 1), outcome
    assert lines[0].startswith("encdec: error: ")
    for part in parts:
        assert part in lines[0]
