"""For all tests: strict arithmetic, commands as a fixture, no files in the user's cache."""

import io
import sys

import jax
import pytest

from tests.commands import Outcome, outcome

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(autouse=True)
def own_token_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("encdec.preparing.cache_folder", lambda: folder)


@pytest.fixture
def encdec(capfdbinary, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in this process; `stdin` is what it reads."""

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        return outcome(capfdbinary.readouterr, *arguments)

    return run
