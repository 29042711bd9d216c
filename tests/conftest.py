"""For all tests: strict dtype promotion, commands as a fixture, no files in the user's cache, and
fuzzed inputs that are the same in every run.

The CPU counts as four devices, for the tests of layouts; without a layout one of them is used.
"""

import io
import sys
from collections.abc import Iterator

import hypothesis
import jax
import pytest

from tests.commands import Outcome, outcome

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 4)
# Most compiled programs run once or twice here, so compiling takes longer than running.
jax.config.update("jax_disable_most_optimizations", True)

hypothesis.settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=150,
    # An example that needs files writes them anew.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 1)


@pytest.fixture(autouse=True)
def private_token_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("encdec.files.cache_folder", lambda: folder)


@pytest.fixture
def full_optimization() -> Iterator[None]:
    """For tests that read the program which XLA compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def encdec(capfdbinary, monkeypatch: pytest.MonkeyPatch):
    """A function that runs a command in this process; `stdin` is the command's input."""

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        return outcome(capfdbinary.readouterr, *arguments)

    return run
