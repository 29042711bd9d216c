"""Schedules against the papers' formulas, updates against NumPy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from encdec.config import TrainingConfig
from encdec.training.optimizer import optimizer, schedule

CONFIG = TrainingConfig(max_steps=50, warmup=8, learning_rate=0.01)


def rates(config: TrainingConfig) -> list[float]:
    of = jax.jit(schedule(config))
    return [float(of(step)) for step in range(config.max_steps)]


def test_inverse_square_root_is_the_papers_equation_3() -> None:
    width, warmup = 512, 8
    config = replace(CONFIG, warmup=warmup, learning_rate=(width * warmup) ** -0.5)
    expected = [width**-0.5 * min(n**-0.5, n * warmup**-1.5) for n in range(1, 51)]
    np.testing.assert_allclose(rates(config), expected, rtol=1e-5)


def test_cosine_falls_from_the_top_to_nothing() -> None:
    found = rates(replace(CONFIG, schedule="cosine"))
    np.testing.assert_allclose(found[:8], [0.01 * n / 8 for n in range(1, 9)], rtol=1e-5)
    # From step 8, whose rate is the highest, to step 51, which does not come and would have none.
    fractions = (np.arange(8, 51) - 8) / (51 - 8)
    np.testing.assert_allclose(found[7:], 0.005 * (1 + np.cos(np.pi * fractions)), rtol=1e-4)
    assert found[49] > 0
    assert (np.diff(found[7:]) < 0).all()


@pytest.mark.parametrize("warmup", [0, 8])
def test_constant(warmup: int) -> None:
    found = rates(replace(CONFIG, schedule="constant", warmup=warmup))
    np.testing.assert_allclose(found[warmup:], 0.01, rtol=1e-6)
    np.testing.assert_allclose(found[:warmup], [0.01 * n / 8 for n in range(1, warmup + 1)])


@pytest.mark.parametrize(
    ("decayed", "which"),
    [
        ("matrices", {"matrix", "table"}),
        ("not-embeddings", {"matrix"}),
        ("all", {"matrix", "table", "bias"}),
    ],
)
def test_what_decays_is_a_choice(decayed: str, which: set[str]) -> None:
    """Without a gradient only decay moves a parameter: to (1 - rate * decay) of it."""
    config = replace(
        CONFIG,
        schedule="constant",
        warmup=0,
        optimizer="adamw",
        weight_decay=0.1,
        weight_decay_mask=decayed,
    )
    params = {
        "layer": {"matrix": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "src_embedding": {"embedding": jnp.ones((5, 2))},
    }
    adam = optimizer(config)
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
        nothing = jax.tree.map(jnp.zeros_like, params)
        updates, _ = adam.update(nothing, adam.init(params), params)
    moved = optax.apply_updates(params, updates)
    found = {**moved["layer"], "table": moved["src_embedding"]["embedding"]}
    for name, p in found.items():
        np.testing.assert_allclose(p, 1 - 0.01 * 0.1 if name in which else 1, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_updates_are_adams(decay: float) -> None:
    """Kingma 2015, algorithm 1, with decoupled decay (Loshchilov 2019) of matrices alone."""
    config = replace(
        CONFIG,
        schedule="constant",
        optimizer="adamw" if decay else "adam",
        weight_decay=decay,
    )
    rng = np.random.default_rng(0)
    params = {"matrix": rng.normal(size=(3, 5)), "bias": rng.normal(size=7)}
    ours = jax.tree.map(jnp.float32, params)
    adam = optimizer(config)
    state = adam.init(ours)
    mean = {name: np.zeros_like(p) for name, p in params.items()}
    square = {name: np.zeros_like(p) for name, p in params.items()}
    for n in range(1, 6):
        gradients = {name: rng.normal(size=p.shape) for name, p in params.items()}
        with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
            updates, state = adam.update(jax.tree.map(jnp.float32, gradients), state, ours)
        ours = optax.apply_updates(ours, updates)
        rate = 0.01 * min(n / 8, 1)
        for name, g in gradients.items():
            mean[name] = 0.9 * mean[name] + 0.1 * g
            square[name] = 0.98 * square[name] + 0.02 * g**2
            step = mean[name] / (1 - 0.9**n) / (np.sqrt(square[name] / (1 - 0.98**n)) + 1e-9)
            step = step + (decay * params[name] if name == "matrix" else 0)
            params[name] = params[name] - rate * step
    for name, p in params.items():
        np.testing.assert_allclose(ours[name], p, rtol=2e-5, atol=1e-6)
