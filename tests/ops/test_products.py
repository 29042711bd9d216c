"""Products against NumPy in float64, and what a device is asked for."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.ops import products
from encdec.ops.products import einsum, matmul
from encdec.types import Precision

A, B, C, D = 2, 3, 5, 7
PRODUCTS = [
    ("abc,cd->abd", (A, B, C), (C, D), matmul),
    ("abc,acd->abd", (A, B, C), (A, C, D), matmul),
    ("abcd,bd->acb", (A, B, C, D), (B, D), None),
    ("abcd,c->abd", (A, B, C, D), (C,), None),
]


def rounded(x: np.ndarray) -> np.ndarray:
    return np.asarray(x.astype(jnp.bfloat16), np.float64)


@pytest.mark.parametrize(("spec", "left", "right", "same"), PRODUCTS)
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_products_and_gradients_are_numpys(spec, left, right, same, precision: Precision) -> None:
    """bfloat16 rounds what is multiplied, and nothing else."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in (left, right))
    z, pullback = jax.vjp(lambda x, y: einsum(spec, x, y, precision), x, y)
    dz = rng.normal(size=z.shape).astype(np.float32)
    of = rounded if precision == "bfloat16" else lambda x: x.astype(np.float64)
    ends = spec.replace("->", ",").split(",")
    expected = (
        np.einsum(spec, of(x), of(y)),
        np.einsum(f"{ends[2]},{ends[1]}->{ends[0]}", of(dz), of(y)),
        np.einsum(f"{ends[0]},{ends[2]}->{ends[1]}", of(x), of(dz)),
    )
    for found, right_one in zip((z, *pullback(dz)), expected, strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, right_one, rtol=1e-5, atol=1e-5)
    if same:
        np.testing.assert_array_equal(same(x, y, precision), z)


def test_sums_of_many_small_terms_are_float32() -> None:
    """10,000 terms of 0.01 in a row, and in the gradient of what they are multiplied by."""
    n = 10_000
    x, y = np.full((1, n), 0.01, np.float32), np.ones((n, 1), np.float32)
    assert matmul(x, y, "bfloat16").item() == pytest.approx(100, rel=0.01)
    gradient = jax.grad(lambda w: matmul(y, w, "bfloat16").sum() * 0.01)(np.ones((1, 1), "f"))
    assert gradient.item() == pytest.approx(100, rel=0.01)


def test_no_other_code_leaves_the_precision_of_a_product_to_the_device() -> None:
    root = Path(products.__file__).parents[1]
    calls = {"einsum", "matmul", "dot", "tensordot", "vdot", "inner", "dot_general", "Dense"}
    folders = ("models", "ops", "search", "inference", "training")
    for file in (file for folder in folders for file in (root / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            where = (file.relative_to(root).as_posix(), getattr(node, "lineno", 0))
            assert not isinstance(getattr(node, "op", None), ast.MatMult), where
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                is_library = ast.unparse(node.func.value) in ("jnp", "nn", "jax.lax", "lax")
                names_precision = any(k.arg == "precision" for k in node.keywords)
                is_product = is_library and node.func.attr in calls
                if is_product and not names_precision:
                    # Products of integers are exact.
                    assert file.name in ("products.py", "int8.py"), where


def test_gradients_at_once_are_those_of_each_array_and_wait_for_each_other() -> None:
    x, y = np.float32([2.0, 3.0]), np.float32([5.0, 7.0])

    def loss(arrays):
        x, y = products.with_gradients_at_once(arrays)
        return (x * x * y).sum()

    gradient = jax.jit(jax.value_and_grad(loss))
    value, (dx, dy) = gradient((x, y))
    assert value == 4 * 5 + 9 * 7
    np.testing.assert_array_equal(dx, 2 * x * y)
    np.testing.assert_array_equal(dy, x * x)
    barriers = [line for line in gradient.lower((x, y)).as_text().splitlines() if "barrier" in line]
    assert len(barriers) == 1
    assert barriers[0].count("tensor<2xf32>") == 2
