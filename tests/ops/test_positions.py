import numpy as np
import pytest

from encdec.ops.positions import (
    relative_buckets,
    sinusoidal,
    sinusoidal_halves,
    sinusoidal_tensor2tensor,
)
from tests import oracles


def test_sinusoidal_is_the_formula_of_the_paper() -> None:
    np.testing.assert_allclose(sinusoidal(11, 6), oracles.positions(11, 6), atol=1e-6)


def test_halves_are_the_same_columns_in_another_order() -> None:
    table = oracles.positions(11, 6)
    expected = np.concatenate([table[:, ::2], table[:, 1::2]], 1)
    np.testing.assert_allclose(sinusoidal_halves(11, 6), expected, atol=1e-6)


def test_frequencies_of_tensor2tensor_end_at_a_ten_thousandth() -> None:
    expected = oracles.positions_halves(11, 6, [1, 1e-2, 1e-4])
    np.testing.assert_allclose(sinusoidal_tensor2tensor(11, 6), expected, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (4, 3)])
def test_buckets_of_distances(buckets: int, max_distance: int, bidirectional: bool) -> None:
    distances = np.arange(-150, 151)
    found = relative_buckets(
        distances, buckets=buckets, max_distance=max_distance, bidirectional=bidirectional
    )
    expected = [oracles.bucket(d, buckets, max_distance, bidirectional) for d in distances]
    np.testing.assert_array_equal(found, expected)
    unused = (
        {buckets // 2} if bidirectional else set()
    )  # a key after the query is not at distance 0
    assert set(found) == set(range(buckets)) - unused
