"""Strict arithmetic for all tests: no silent change of type. Commands as a fixture."""

import io
import sys

import jax
import pytest

from tests.commands import Outcome, outcome

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def encdec(capfdbinary, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in this process; `stdin` is what it reads."""

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        return outcome(capfdbinary.readouterr, *arguments)

    return run
