"""Packed heads against attention head by head in float64, and where they are used."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from encdec.config import TransformerConfig
from encdec.models import registry
from encdec.ops import packed_heads
from encdec.types import Precision

B, T, S = 3, 5, 7


def arrays(heads: int, width: int, keys: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(B, n, heads, width)).astype(np.float32) for n in (T, keys, keys)]


def some_keys() -> np.ndarray:
    """A mask that keeps all keys, the first four, and none."""
    return (np.arange(S) < np.array([[S], [4], [0]]))[:, None, None]


def head_by_head(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, scale: float):
    """float64 [B, T, H, K] by loops over sentences, heads and queries."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    mask = np.broadcast_to(mask, (B, 1, T, k.shape[1]))
    result = np.zeros(q.shape)
    for b, t, h in np.ndindex(q.shape[:3]):
        keys = mask[b, 0, t]
        if keys.any():
            weights = np.exp(k[b, keys, h] @ q[b, t, h] * scale)
            result[b, t, h] = weights / weights.sum() @ v[b, keys, h]
    return result


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-5), ("bfloat16", 0.02)])
@pytest.mark.parametrize(
    ("heads", "width", "is_causal", "is_scaled"),
    [(6, 64, False, True), (4, 32, True, False), (2, 64, True, True)],
)
def test_packed_heads_are_attention_head_by_head(
    *, heads: int, width: int, is_causal: bool, is_scaled: bool, precision: Precision, error: float
) -> None:
    operands = arrays(heads, width, T if is_causal else S)
    if not is_scaled:
        operands[0] /= width**0.5
    mask = np.tril(np.ones((T, T), bool))[None, None] if is_causal else some_keys()
    expected = head_by_head(*operands, mask, width**-0.5 if is_scaled else 1.0)
    found = packed_heads.packed(is_scaled, precision, *operands, mask)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=error, atol=error)

    # A directional derivative by differences in float64.
    directions = [np.cos(3 * x + 1) for x in operands]
    weights = np.sin(np.arange(expected.size)).reshape(expected.shape)
    _, pullback = jax.vjp(lambda *x: packed_heads.packed(is_scaled, precision, *x, mask), *operands)
    gradients = pullback(jnp.asarray(weights, jnp.float32))
    for i, (gradient, direction) in enumerate(zip(gradients, directions, strict=True)):
        ends = []
        for sign in (1, -1):
            moved = [x.astype(np.float64) for x in operands]
            moved[i] = moved[i] + sign * 1e-4 * direction
            scale = width**-0.5 if is_scaled else 1.0
            ends.append((head_by_head(*moved, mask, scale) * weights).sum())
        slope = (ends[0] - ends[1]) / 2e-4
        size = np.linalg.norm(gradient) * np.linalg.norm(direction) / np.sqrt(gradient.size)
        assert abs((np.asarray(gradient) * direction).sum() - slope) < error * 10 * size


def test_which_heads_fit() -> None:
    def fits(heads: int, width: int) -> bool:
        return packed_heads.fits(jnp.zeros((1, 1, heads, width)))

    assert [fits(*x) for x in ((8, 64), (2, 64), (4, 32), (12, 32))] == [True] * 4
    assert [fits(*x) for x in ((3, 64), (2, 32), (8, 128), (8, 48))] == [False] * 4


@pytest.mark.parametrize("is_causal", [False, True])
def test_only_a_tpu_packs_heads(is_causal: bool) -> None:
    operands = arrays(4, 64, T if is_causal else S)
    mask = None if is_causal else some_keys()

    def gradients(*operands: Any) -> Any:
        attend = partial(packed_heads.attend, mask=mask)
        return jax.grad(lambda *x: attend(*x).sum(), (0, 1, 2))(*operands)

    def packs(platform: str) -> bool:
        """Whether two pairs of heads are multiplied at once."""
        module = export.export(jax.jit(gradients), platforms=[platform])(*operands).mlir_module()
        products = [line for line in module.splitlines() if "dot_general" in line]
        return any(f"x2x{2 * 64}xf32" in line for line in products)

    is_there = {platform: packs(platform) for platform in ("cpu", "cuda", "tpu")}
    assert is_there == {"cpu": False, "cuda": False, "tpu": True}


def test_a_transformer_packs_its_heads_where_nobody_asks_for_maps() -> None:
    config = TransformerConfig(layers=1, width=128, heads=2, feed_forward=6, dropout=0.1)
    dropping = TransformerConfig(
        layers=1, width=128, heads=2, feed_forward=6, attention_dropout=0.1
    )

    def packs(config: TransformerConfig, mutable: list[str], key: Any = None) -> bool:
        model = registry.build(config, 11, 13)
        rngs = None if key is None else {"dropout": key}

        def run(params: Any, src: Any, src_mask: Any, tgt: Any) -> Any:
            return model.apply({"params": params}, src, src_mask, tgt, mutable=mutable, rngs=rngs)

        shapes = [jax.ShapeDtypeStruct((B, S), dtype) for dtype in ("int32", "bool", "int32")]
        exported = export.export(jax.jit(run), platforms=["tpu"])(registry.abstract(model), *shapes)
        return f"tensor<{B}x{2 * S}x1x128xf32>" in exported.mlir_module()

    assert packs(config, [])
    assert packs(config, [], jax.random.key(0))
    assert packs(dropping, [])
    assert not packs(dropping, [], jax.random.key(0))
    assert not packs(config, ["intermediates"])
