"""Layers that are compiled as a loop compute what they compute one after the other."""

from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import TransformerConfig
from encdec.models import layer_stack, registry
from encdec.models.interface import bind
from encdec.models.layers import Dropout
from encdec.models.loss import batch_loss
from encdec.types import Array, Batch, Params, SpecialIds
from tests.batches import padded_batch

PAD, BOS, EOS, _ = SpecialIds()
B, S, T, SRC, TGT = 3, 6, 5, 11, 13
POST = TransformerConfig(
    layers=2, decoder_layers=3, width=8, feed_forward=12, heads=2, norm="post", dropout=0.0
)
RELATIVE = replace(
    POST,
    norm="pre",
    norm_type="rms",
    gated=True,
    biases="none",
    positions="relative",
    relative_buckets=4,
    relative_max_distance=5,
    relative_every_layer=True,
    tie_embeddings=True,
)
CASES = {
    "post": (replace(POST, biases="all"), False),
    "remat": (POST, True),
    "relative in each layer": (RELATIVE, False),
    "relative of all layers": (replace(RELATIVE, relative_every_layer=False, layers=1), True),
}


def batch() -> Batch:
    rng = np.random.default_rng(0)
    src = rng.integers(4, SRC, (B, S)).astype(np.int32)
    tgt = rng.integers(4, TGT, (B, T + 1)).astype(np.int32)
    src[:, -1], tgt[:, 0], tgt[:, -1] = EOS, BOS, EOS
    src[0, 3:] = tgt[0, 4:] = PAD
    return padded_batch(src, tgt)


def random_params(config: TransformerConfig) -> Params:
    rng = np.random.default_rng(1)
    shapes = registry.abstract(registry.build(config, SRC, TGT))
    return jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(("config", "remat"), CASES.values(), ids=CASES)
def test_losses_and_gradients_are_those_of_layers_in_turn(
    config: TransformerConfig, remat: bool
) -> None:
    params = random_params(config)

    def step(model: nn.Module):
        loss = lambda p: batch_loss(model, p, batch(), 0.1, None).loss  # noqa: E731
        with jax.numpy_dtype_promotion("standard"):  # Linen's layer norm promotes
            return jax.jit(jax.value_and_grad(loss))(params)

    (one, one_gradient), (other, other_gradient) = (
        step(registry.build(config, SRC, TGT, scan=scan, remat=scan and remat))
        for scan in (False, True)
    )
    np.testing.assert_allclose(other, one, rtol=1e-6)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), other_gradient, one_gradient
    )


def test_parameters_have_the_same_names_and_values() -> None:
    one, other = (registry.build(RELATIVE, SRC, TGT, scan=scan) for scan in (False, True))
    drawn = [registry.init(model, jax.random.key(0)) for model in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *drawn)
    jax.tree.map(np.testing.assert_equal, *map(registry.split_axes, (one, other)))


def test_maps_are_there_where_they_are_asked_for() -> None:
    params, (src, src_mask, tgt, _) = random_params(POST), batch()

    def maps(scan: bool):
        model = registry.build(POST, SRC, TGT, scan=scan)
        _, kept = bind(model, params)(
            src, src_mask, tgt[:, :-1], method="logit_factors", mutable=["intermediates"]
        )
        return model.self_attention_maps(kept["intermediates"])

    with jax.numpy_dtype_promotion("standard"):
        jax.tree.map(np.testing.assert_array_equal, maps(True), maps(False))


def test_the_program_has_the_products_of_one_layer() -> None:
    def products(layers: int, scan: bool) -> int:
        config = replace(POST, layers=layers, decoder_layers=layers)
        model = registry.build(config, SRC, TGT, scan=scan)
        loss = lambda p: batch_loss(model, p, batch(), 0.1, None).loss  # noqa: E731
        with jax.numpy_dtype_promotion("standard"):
            lowered = jax.jit(jax.grad(loss)).lower(registry.abstract(model))
        return lowered.as_text().count("stablehlo.dot_general")

    assert products(5, scan=True) == products(2, scan=True) < products(2, scan=False)


# --- dropout --------------------------------------------------------------------------------------


class Switch(nn.Module):
    """Adds its weight to elements that dropout keeps."""

    @nn.compact
    def __call__(self, x: Array, shared: Array, own: Array) -> Array:
        weight = self.param("weight", nn.initializers.ones, ())
        return x + weight * Dropout(0.25)(shared) + own


class Switches(nn.Module):
    def setup(self) -> None:
        self.layers = [Switch() for _ in range(4)]

    def __call__(self, x: Array, own: Array) -> Array:
        key = self.make_rng("dropout") if self.has_rng("dropout") else None
        return layer_stack.scanned(self.layers, x, (jnp.ones_like(x),), list(own), key)


def test_each_layer_drops_other_activations() -> None:
    """Layer i adds 4^i, so the digits of the sum, base 4, say which layers have kept what."""
    params = {f"layers_{i}": {"weight": np.float32(4**i * 0.75)} for i in range(4)}
    x, own = jnp.zeros((50, 80)), jnp.zeros(4)
    run = jax.jit(partial(Switches().apply, {"params": params}))
    total = np.asarray(run(x, own, rngs={"dropout": jax.random.key(0)}))
    kept = np.stack([total.astype(int) // 4**i % 4 for i in range(4)]).reshape(4, -1)
    assert set(np.unique(kept)) == {0, 1}
    np.testing.assert_array_equal(total.ravel(), 4.0 ** np.arange(4) @ kept)
    np.testing.assert_allclose(kept.mean(1), 0.75, atol=0.03)  # 4 deviations
    np.testing.assert_allclose(np.corrcoef(kept), np.eye(4), atol=0.07)
    again = run(x, own, rngs={"dropout": jax.random.key(1)})
    assert (np.asarray(again) != total).mean() > 0.5
    dry = run(x, own + jnp.arange(4.0))
    np.testing.assert_array_equal(dry, 0.75 * (1 + 4 + 16 + 64) + 6)


def test_dropout_of_a_model_leaves_the_mean_and_differs_by_key() -> None:
    config = replace(POST, layers=2, norm="pre", dropout=0.1, attention_dropout=0.1)
    model, params = registry.build(config, SRC, TGT, scan=True), random_params(config)
    plain = registry.build(config, SRC, TGT)

    def loss(model: nn.Module, key: Array | None) -> Array:
        return batch_loss(model, params, batch(), 0.0, key).loss

    with jax.numpy_dtype_promotion("standard"):
        keys = jax.random.split(jax.random.key(0), 400)
        scanned, unrolled = (
            np.asarray(jax.jit(jax.vmap(partial(loss, one)))(keys)) for one in (model, plain)
        )
    assert len(set(scanned.tolist())) > 390
    error = np.sqrt((scanned.var() + unrolled.var()) / len(keys))
    assert abs(scanned.mean() - unrolled.mean()) < 4 * error
    assert 0.7 < scanned.std() / unrolled.std() < 1.4
