import jax
import numpy as np
import pytest
from jax.test_util import check_grads

from encdec.ops import cross_entropy as losses
from encdec.ops.cross_entropy import cross_entropy, part_rows, token_log_probs
from tests import oracles

B, T, D, V = 2, 5, 3, 7


def batch():
    rng = np.random.default_rng(0)
    shapes = (B, T, D), (D, V), (V,)
    factors = tuple(1.5 * rng.normal(size=shape).astype(np.float32) for shape in shapes)
    labels = rng.integers(1, V, (B, T)).astype(np.int32)
    mask = np.ones((B, T), bool)
    mask[1, 2:] = False
    return factors, labels, mask


@pytest.fixture(params=[10**9, 3], ids=["all tokens at once", "three tokens at once"])
def split_tokens(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "part_rows", lambda columns, **_: request.param)


@pytest.mark.usefixtures("split_tokens")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sums_are_those_of_a_loop_over_tokens(smoothing: float) -> None:
    (x, kernel, bias), labels, mask = batch()
    loss = correct = tokens = 0.0
    for features, y, real in zip(x.reshape(-1, D), labels.ravel(), mask.ravel(), strict=True):
        if not real:
            continue
        logits = features @ kernel + bias
        q = np.full(V, smoothing / V)
        q[y] += 1 - smoothing
        log_probs = np.log(oracles.softmax(logits))
        loss -= q @ log_probs
        correct += logits.argmax() == y
        tokens += 1
    sums = jax.jit(cross_entropy, static_argnums=5)(x, kernel, bias, labels, mask, smoothing)
    np.testing.assert_allclose(sums, (loss, correct, tokens), rtol=1e-5)


@pytest.mark.usefixtures("split_tokens")
def test_token_log_probs_are_entries_of_the_softmax() -> None:
    (x, kernel, bias), labels, mask = batch()
    log_probs = jax.jit(token_log_probs)(x, kernel, bias, labels, mask)
    assert log_probs.shape == labels.shape
    for b, t in np.ndindex(labels.shape):
        row = oracles.softmax(x[b, t] @ kernel + bias)
        expected = np.log(row[labels[b, t]]) if mask[b, t] else 0
        np.testing.assert_allclose(log_probs[b, t], expected, rtol=1e-5)


@pytest.mark.usefixtures("split_tokens")
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradient_is_p_minus_q(with_bias: bool) -> None:
    (x, kernel, bias), labels, mask = batch()
    bias = bias if with_bias else None
    gradient = jax.grad(lambda f: 3 * cross_entropy(*f, labels, mask, 0.1).loss)((x, kernel, bias))
    q = np.full((B, T, V), 0.1 / V)
    np.put_along_axis(q, labels[..., None], 0.9 + 0.1 / V, -1)
    z = x @ kernel + (bias if with_bias else 0)
    dz = 3 * (oracles.softmax(z) - q) * mask[..., None]
    np.testing.assert_allclose(gradient[0], dz @ kernel.T, atol=2e-5)
    np.testing.assert_allclose(gradient[1], np.einsum("btd,btv->dv", x, dz), atol=2e-5)
    if with_bias:
        np.testing.assert_allclose(gradient[2], dz.sum((0, 1)), atol=2e-5)
    else:
        assert gradient[2] is None


def test_gradient_against_finite_differences() -> None:
    factors, labels, mask = batch()
    loss = jax.jit(lambda *f: cross_entropy(*f, labels, mask, 0.1).loss)
    check_grads(loss, factors, order=1, modes=["rev"], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("columns", [100, 8_000, 32_000, 256_000])
def test_parts_are_as_large_as_a_device_can_use(columns: int) -> None:
    cpu = part_rows(columns, is_cpu=True, memory=2**33)
    assert cpu >= 256
    assert cpu == 256 or cpu * columns * 4 <= 2**24  # bytes of a cache
    assert part_rows(columns, is_cpu=False, memory=80 * 2**30) >= 1024
    small = part_rows(columns, is_cpu=False, memory=2**30)
    assert small >= 1
    assert small * columns * 4 * 3 <= 2**28  # logits, exponents, gradient


def test_a_large_vocabulary_is_not_cut_into_narrow_parts() -> None:
    """On a CPU 512 tokens of 256,000 logits are two parts, in the program that is compiled."""
    rows, columns = 512, 256_000
    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((1, rows, 2), (2, columns))]
    labels = np.zeros((1, rows), np.int32)
    loss = jax.grad(lambda x, w: cross_entropy(x, w, None, labels, labels == 0, 0.1).loss)
    text = jax.jit(loss).lower(*shapes).as_text()
    assert f"tensor<{rows // 2}x{columns}xf32>" in text
