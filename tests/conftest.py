"""For all tests: strict arithmetic, commands as a fixture, no files in the user's cache.

Four fake devices stand by for the tests of layouts; whoever names no layout gets one of them.
"""

import io
import sys
from collections.abc import Iterator

import jax
import pytest

from tests.commands import Outcome, outcome

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 4)
# Most programs here run once or twice: compiling takes longer than running.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 1)


@pytest.fixture(autouse=True)
def own_token_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("encdec.files.cache_folder", lambda: folder)


@pytest.fixture
def whole_compiler() -> Iterator[None]:
    """For tests that look at what XLA makes of a program."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def encdec(capfdbinary, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in this process; `stdin` is what it reads."""

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        return outcome(capfdbinary.readouterr, *arguments)

    return run
