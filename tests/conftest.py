"""For all tests: strict arithmetic, no silent change of type; no files in the user's cache."""

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(autouse=True)
def own_token_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("encdec.preparing.cache_folder", lambda: folder)
