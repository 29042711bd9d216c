import numpy as np

from encdec.ops.positions import sinusoidal
from tests import oracles


def test_sinusoidal_is_the_formula_of_the_paper() -> None:
    np.testing.assert_allclose(sinusoidal(11, 6), oracles.positions(11, 6), atol=1e-6)
