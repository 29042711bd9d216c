"""Keys of seeds: those of `jax.random.key` while it keeps all bits, and all different beyond."""

import itertools

import jax
import numpy as np
import pytest

from encdec.config import RunConfig
from encdec.config.search import SearchOptions
from encdec.ops.seeds import key_from_words, seed_words
from encdec.types import InputError


@pytest.mark.parametrize("seed", [0, 17, 2**31 - 1])
def test_a_small_seed_gives_the_key_of_jax(seed: int) -> None:
    ours, theirs = key_from_words(seed_words(seed)), jax.random.key(seed)
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(theirs))


def test_every_bit_of_a_seed_counts() -> None:
    seeds = [0, 1, 2**31, 2**32, 2**32 + 1, 9_999_999_999, 2**63, 2**64 - 1]
    drawn = [jax.random.bits(key_from_words(seed_words(seed)), (4,)) for seed in seeds]
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(drawn, 2))


def test_a_seed_out_of_range_is_refused() -> None:
    for make in (RunConfig, SearchOptions):
        assert make(seed=2**64 - 1).seed == 2**64 - 1
        for bad in (-1, 2**64):
            with pytest.raises(InputError, match=r"seed = .* at least 0 and below 2\^64"):
                make(seed=bad)
