"""What training of the recurrent models with attention keeps for its gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import AttentionConfig
from encdec.models import registry
from encdec.ops import rnn_attention
from encdec.types import Precision

# Prime sizes, and a batch that is large beside the vocabulary.
B, S, T, A, VOCABULARY = 7, 11, 13, 8, 17
TYPES = ("bahdanau", "conditional", "luong")


def problem(attention_type: Any, precision: Precision) -> tuple[Any, Any]:
    """A function of the parameters, and parameters."""
    config = AttentionConfig(embed=5, hidden=A, score="additive", attention_type=attention_type)
    model = registry.build(config, VOCABULARY, VOCABULARY, precision=precision)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: rng.normal(size=p.shape).astype(np.float32) / 2, registry.abstract(model)
    )
    src = rng.integers(4, VOCABULARY, (B, S))
    tgt = rng.integers(4, VOCABULARY, (B, T))
    mask = np.arange(S) < rng.integers(1, S + 1, (B, 1))

    def logits(params: Any) -> Any:
        return model.apply({"params": params}, src, mask, tgt)

    return logits, params


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention_type", TYPES)
def test_nothing_that_is_kept_has_a_hidden_unit_for_each_pair_of_tokens(
    attention_type: str, precision: Precision
) -> None:
    logits, params = problem(attention_type, precision)
    kept = jax.tree.leaves(jax.eval_shape(lambda p: jax.vjp(logits, p)[1], params))
    assert len(kept) > 10
    assert max(leaf.size for leaf in kept) < B * T * S * A


@pytest.mark.parametrize("attention_type", TYPES)
def test_computing_scores_again_changes_neither_values_nor_gradients(
    attention_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, params = problem(attention_type, "float32")

    def run() -> tuple[Any, Any]:
        # A new function each time, so that it is traced again.
        values, pullback = jax.jit(partial(jax.vjp, lambda p: logits(p)))(params)
        return values, jax.jit(pullback)(jnp.cos(values))[0]

    values, gradients = run()

    def plain_scores(queries, keys, v, precision):
        hidden = jnp.tanh(queries[:, :, None] + keys[:, None])
        return jnp.einsum("bqsa,a->bqs", hidden, v, precision="highest")

    monkeypatch.setattr(rnn_attention, "additive_scores", plain_scores)
    expected_values, expected = run()
    np.testing.assert_array_equal(values, expected_values)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), gradients, expected)
