import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from encdec.ops.scan import scan

T, B, H = 5, 3, 4


def test_scan_gradients_against_finite_differences() -> None:
    """Of matrices [n, m] and [B, n, m], constants, the initial carry and the inputs."""
    rng = np.random.default_rng(1)
    W, V, c, h, xs = (
        rng.normal(size=size).astype(np.float32) * 0.5
        for size in ((H, H), (B, H, 2), (B, 2), (B, H), (T, B, H))
    )

    def step(matmul, const, carry, x):
        carry = jnp.tanh(x + matmul("W", carry))
        return carry, matmul("V", carry[:, None])[:, 0] * const

    def loss(W, V, c, h, xs):
        last, ys = scan(step, False, "float32", {"W": W, "V": V}, c, h, xs)
        return (last**2).sum() + jnp.sin(ys).sum()

    check_grads(jax.jit(loss), (W, V, c, h, xs), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)
