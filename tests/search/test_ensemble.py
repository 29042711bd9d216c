"""An ensemble against plain NumPy, and as one member."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config.search import EnsembleOptions
from encdec.search.beam import beam_search
from encdec.search.ensemble import ensemble
from encdec.search.sampling import greedy
from encdec.search.types import LengthPenalty
from encdec.types import InputError
from tests.search.stubs import BANNED, EOS, SPECIALS, start, table

SENTENCES = [5, 17, 101]
V = 9


def combined(log_probs: np.ndarray, weights: list[float], mean: str) -> np.ndarray:
    """[members, V] -> [V], by the definitions."""
    w = np.array(weights)[:, None]
    if mean == "probabilities":
        mixture = (w * np.exp(log_probs)).sum(0)
    else:
        mixture = (np.exp(log_probs) ** w).prod(0)
    with np.errstate(divide="ignore"):
        return np.log(mixture / (mixture.sum() if mean != "probabilities" else 1))


@pytest.mark.parametrize("mean", ["probabilities", "log-probabilities"])
def test_greedy_search_takes_the_likeliest_of_the_mean(mean: str) -> None:
    members, weights = [table(V, seed=seed) for seed in (1, 2, 3)], [0.5, 0.2, 0.3]
    step = ensemble([one.step for one in members], jnp.float32(jnp.array(weights)), mean=mean)
    memory, init_cache = start(SENTENCES, 1)
    three = greedy(
        step,
        (memory,) * 3,
        lambda room: (init_cache(room),) * 3,
        jnp.full(3, 7),
        max_len=7,
        specials=SPECIALS,
        banned=BANNED,
        with_attention=True,
    )
    ours = jax.device_get(three)
    for b, sentence in enumerate(SENTENCES):
        tokens: list[int] = []
        total = 0.0
        while len(tokens) < 7 and EOS not in tokens:
            rows = [one.logits[one.row(sentence, tokens)].astype(float) for one in members]
            each = np.array([row - np.log(np.exp(row).sum()) for row in rows])
            mixed = combined(each, weights, mean)
            mixed[[SPECIALS.pad, SPECIALS.start]] = -np.inf
            seen = members[0].attention[members[0].row(sentence, tokens)]
            np.testing.assert_array_equal(ours.attention[b, 0, len(tokens)], seen)
            tokens.append(int(mixed.argmax()))
            total += mixed[tokens[-1]]
        assert ours.tokens[b, 0, : ours.lengths[b, 0]].tolist() == tokens
        assert ours.log_probs[b, 0] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("mean", ["probabilities", "log-probabilities"])
def test_a_model_with_itself_is_the_model(mean: str) -> None:
    model = table(V, seed=4)
    twice = ensemble([model.step] * 2, jnp.array([0.3, 0.7]), mean=mean)
    search = partial(
        beam_search,
        beams=3,
        max_len=6,
        specials=SPECIALS,
        banned=BANNED,
        penalty=LengthPenalty(0.6),
    )
    memory, init_cache = start(SENTENCES, 3)
    one = search(model.step, memory, init_cache, jnp.full(3, 6))
    two = search(twice, (memory, memory), lambda room: (init_cache(room),) * 2, jnp.full(3, 6))
    np.testing.assert_array_equal(one.tokens, two.tokens)
    np.testing.assert_allclose(one.scores, two.scores, rtol=1e-5)


def test_weights_are_checked() -> None:
    assert EnsembleOptions().weights_of(4) == (0.25,) * 4
    assert EnsembleOptions(ensemble_weights=(1.0, 0.0)).weights_of(2) == (1, 0)
    for weights, part in [
        ((0.5, 0.5), "2 weights for 3 runs"),
        ((0.5, 0.5, 0.5), "their sum 1"),
        ((1.5, -0.5, 0.0), "at least 0"),
        ((float("nan"), 0.5, 0.5), "at least 0"),
    ]:
        with pytest.raises(InputError, match=part):
            EnsembleOptions(ensemble_weights=weights).weights_of(3)
    with pytest.raises(InputError, match="ensemble_mean = 'median'"):
        EnsembleOptions(ensemble_mean="median")  # type: ignore[arg-type]
