"""A vocabulary may have any special ids: another numbering of the same tokens changes nothing.

Marian's: the end is 0, unknown 1, and the last id is both padding and the start token.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config import ModelConfig, Seq2SeqConfig, TransformerConfig
from encdec.data.batches import scoring_batches
from encdec.data.tokens import Examples, tokens_of
from encdec.models import registry
from encdec.models.loss import batch_loss
from encdec.search.beam import beam_search
from encdec.search.sampling import greedy
from encdec.types import Batch, Params, SpecialIds

LETTERS = 7
OURS, MARIAN = SpecialIds(), SpecialIds(pad=LETTERS + 2, start=LETTERS + 2, end=0, unknown=1)
OUR_IDS = np.array([OURS.end, OURS.unknown, *range(4, 4 + LETTERS), OURS.start])
"""Our id of each of Marian's."""
SENTENCES = [([0, 1, 2], [3, 4]), ([5], [6, 0, 1, 2]), ([3, 3], []), ([4, 1], [2])]
"""Letters of pairs."""
T = 6


def numbered(specials: SpecialIds, first_letter: int) -> Batch:
    """The pairs as one batch."""
    sides = zip(*SENTENCES, strict=True)
    src, tgt = (
        tokens_of([[first_letter + i for i in letters] for letters in side], specials)
        for side in sides
    )
    ((_, batch),) = scoring_batches(Examples(src, tgt), 1000)
    return batch


def renumbered(params: Params) -> Params:
    """The parameters of the same model with Marian's ids."""

    def rows(path: Any, p: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if "embedding" in name:
            return p[OUR_IDS]
        return p[..., OUR_IDS] if "logits" in name else p

    return jax.tree_util.tree_map_with_path(rows, params)


@pytest.fixture(
    scope="module",
    params=[
        Seq2SeqConfig(embed=3, hidden=4),
        TransformerConfig(layers=1, width=4, feed_forward=6, heads=2),
    ],
    ids=lambda config: type(config).__name__,
)
def both(request: pytest.FixtureRequest):
    """(model, parameters, batch, special ids) with our ids and with Marian's."""
    config: ModelConfig = request.param
    ours = registry.build(config, 4 + LETTERS, 4 + LETTERS)
    marian = registry.build(config, 3 + LETTERS, 3 + LETTERS)
    params = registry.init(ours, jax.random.key(3))
    # Marian's numbering has one id less: ours for padding gets no probability.
    params["logits"]["bias"] = params["logits"]["bias"].at[OURS.pad].set(-1e9)
    return (
        (ours, params, numbered(OURS, 4), OURS),
        (marian, renumbered(params), numbered(MARIAN, 2), MARIAN),
    )


def test_the_loss_is_the_same(both) -> None:
    sums = [batch_loss(model, params, batch, 0.0, None, None) for model, params, batch, _ in both]
    np.testing.assert_allclose(*sums, rtol=1e-5)
    assert sums[0].tokens == sum(len(target) + 1 for _, target in SENTENCES)


@pytest.mark.parametrize("beams", [1, 3])
def test_search_finds_the_same(both, beams: int) -> None:
    results = []
    for model, params, batch, specials in both:
        apply = partial(model.apply, {"params": params})
        memory = apply(batch.src, batch.src_mask, method="encode")
        init_cache = partial(apply, memory, beams, method="init_cache")
        step = partial(apply, method="decode_step")
        limits = jnp.full(len(batch.src), T)
        find = greedy if beams == 1 else partial(beam_search, beams=beams)
        never = tuple({specials.pad, specials.start} - {specials.end})
        results.append(
            find(step, memory, init_cache, limits, max_len=T, specials=specials, banned=never)
        )
    ours, marian = results
    np.testing.assert_array_equal(ours.lengths, marian.lengths)
    np.testing.assert_allclose(ours.scores, marian.scores, rtol=1e-5)
    in_sentence = np.arange(T) < np.asarray(ours.lengths)[..., None]
    np.testing.assert_array_equal(
        np.asarray(ours.tokens)[in_sentence], OUR_IDS[np.asarray(marian.tokens)][in_sentence]
    )
    assert (np.asarray(marian.tokens)[~in_sentence] == MARIAN.pad).all()
