"""Programs here run once or twice, so they are compiled in a hurry."""

import pytest


@pytest.fixture(autouse=True)
def hurry(hurried_compiler: None) -> None:
    """For all tests of this folder."""
