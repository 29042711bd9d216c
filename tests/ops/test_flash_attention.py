"""The kernel, which a CPU interprets here, against the plain products, and where it is used."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental.pallas import tpu as pallas_tpu

from encdec.config import TransformerConfig
from encdec.models import registry
from encdec.ops import flash_attention
from encdec.types import Precision

B, H, K = 3, 2, 8
LONG = flash_attention.SHORTEST


def arrays(queries: int, keys: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(B, n, H, K)).astype(np.float32) for n in (queries, keys, keys)]


def some_keys(length: int) -> np.ndarray:
    """A mask that keeps all keys, the first three, and none."""
    return (np.arange(length) < np.array([[length], [3], [0]]))[:, None, None]


def output_and_gradients(attend: Any, *operands: Any, mask: Any, is_scaled: bool) -> Any:
    def run(*operands: Any) -> Any:
        output, pullback = jax.vjp(lambda *x: attend(*x, mask, is_scaled=is_scaled), *operands)
        return output, pullback(jnp.cos(3 * output))

    return jax.jit(run)(*operands)


# One block, and several of which the last is padded.
@pytest.mark.parametrize(
    ("queries", "keys", "is_causal", "is_scaled"),
    [(130, 600, False, True), (600, 130, False, False), (600, 600, True, True)],
)
def test_the_kernel_is_plain_attention(
    queries: int, keys: int, is_causal: bool, is_scaled: bool
) -> None:
    rows = 1 if is_causal else B  # interpreting takes long
    operands = [x[:rows] for x in arrays(queries, keys)]
    mask = None if is_causal else some_keys(keys)
    run = partial(output_and_gradients, mask=mask, is_scaled=is_scaled)
    expected, expected_gradients = run(flash_attention._plain, *operands)
    with pallas_tpu.force_tpu_interpret_mode():
        output, gradients = run(flash_attention._on_tpu, *operands)
    assert output.dtype == jnp.float32
    if not is_causal:
        assert not np.asarray(output[2]).any()
    np.testing.assert_allclose(output, expected, rtol=0.02, atol=0.02)
    for found, right_one in zip(gradients, expected_gradients, strict=True):
        scale = np.abs(right_one).max()
        np.testing.assert_allclose(found / scale, right_one / scale, atol=0.02)


@pytest.mark.parametrize("is_causal", [False, True])
def test_only_a_tpu_has_the_kernel(is_causal: bool) -> None:
    operands = arrays(LONG, LONG)
    mask = None if is_causal else some_keys(LONG)
    run = jax.jit(partial(output_and_gradients, flash_attention.attend, mask=mask, is_scaled=True))
    kernels = {
        platform: export.export(run, platforms=[platform])(*operands)
        .mlir_module()
        .count("@tpu_custom_call")
        for platform in ("cpu", "cuda", "tpu")
    }
    assert kernels == {"cpu": 0, "cuda": 0, "tpu": 3}  # output, gradients of q, of k and v


def test_one_copy_for_each_device_and_for_each_model() -> None:
    operands = arrays(LONG, LONG)
    split = [np.stack([x, 2 * x]) for x in operands]
    attend = partial(flash_attention.attend, mask=some_keys(LONG))
    expected = [attend(*operands), attend(*(2 * x for x in operands))]
    np.testing.assert_allclose(jax.vmap(attend)(*split), expected, atol=1e-6)
    by_device = jax.device_get(jax.pmap(attend, devices=jax.devices()[:2])(*split))
    np.testing.assert_allclose(by_device, expected, atol=1e-6)


def kernels_of(
    config: TransformerConfig, length: int, precision: Precision, *, mutable: Any = False
) -> int:
    """The kernels in the program that a TPU gets for a model's training."""
    model = registry.build(config, 11, 11, precision=precision)
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def run(params: Any, src: Any, tgt: Any) -> Any:
        keys = {"dropout": jax.random.key(0)}
        return model.apply({"params": params}, src, src > 0, tgt, rngs=keys, mutable=mutable)

    program = export.export(jax.jit(run), platforms=["tpu"])(
        registry.abstract(model), tokens, tokens
    )
    # Layers of the same shapes call one function.
    return len(re.findall(r"call @\w*flash_attention\w*\(", program.mlir_module()))


def test_models_use_it_where_nobody_asks_for_attention() -> None:
    small = partial(TransformerConfig, layers=1, width=16, feed_forward=8, heads=2)
    assert kernels_of(small(), LONG, "bfloat16") == 3
    assert kernels_of(small(), LONG, "bfloat16", mutable=["intermediates"]) == 0
    assert kernels_of(small(attention_dropout=0.1), LONG, "bfloat16") == 0
    # The scores of encoder-decoder attention have no bias.
    assert kernels_of(small(positions="relative"), LONG, "bfloat16") == 1
    assert kernels_of(small(), LONG, "float32") == 0
    assert kernels_of(small(), LONG - 1, "bfloat16") == 0
