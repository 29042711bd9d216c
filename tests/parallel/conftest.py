"""Programs here run once or twice, so they are compiled in a hurry."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def hurried_compiler() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
