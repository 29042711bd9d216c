"""Beam search against brute force, against a plain loop, and what it must not depend on."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.search.beam import beam_parts, beam_search
from encdec.search.processors import Temperature
from encdec.search.sampling import greedy
from encdec.search.types import LengthPenalty, SearchResult
from tests.search.stubs import BANNED, BOS, EOS, PAD, ROWS, SPECIALS, Table, start, table

SENTENCES = [5, 17, 101]


def penalty(length: int, alpha: float, kind: str = "wu") -> float:
    return (((5 + length) / 6) if kind == "wu" else length) ** alpha


def found(
    model: Table, sentences: list[int], max_lengths: list[int], beams: int, **options
) -> SearchResult:
    search = jax.jit(
        partial(
            beam_search,
            model.step,
            beams=beams,
            max_len=max(*max_lengths, 1),
            specials=SPECIALS,
            banned=BANNED,
            **options,
        )
    )
    return jax.device_get(search(*start(sentences, beams), jnp.asarray(max_lengths)))


def hypotheses(result, b: int) -> list[tuple[float, float, list[int]]]:
    """(score, log-probability, tokens) of the places that are taken."""
    taken = np.isfinite(result.scores[b])
    return [
        (result.scores[b, w], result.log_probs[b, w], result.tokens[b, w, :length].tolist())
        for w, length in enumerate(result.lengths[b])
        if taken[w]
    ]


def assert_same(ours, expected) -> None:
    assert [tokens for _, _, tokens in ours] == [tokens for _, _, tokens in expected]
    for place in (0, 1):
        np.testing.assert_allclose(
            [one[place] for one in ours], [one[place] for one in expected], rtol=1e-4, atol=1e-5
        )


def exhaustive(
    model: Table, sentence: int, vocabulary: int, limit: int, rule: LengthPenalty
) -> list[tuple[float, float, list[int]]]:
    """Every sentence that ends within the limit or is cut there, best first."""
    letters = [token for token in range(vocabulary) if token not in (PAD, BOS, EOS)]
    ended = [[*body, EOS] for n in range(limit) for body in itertools.product(letters, repeat=n)]
    cut = [list(body) for body in itertools.product(letters, repeat=limit)]
    totals = [(model.total(sentence, tokens), tokens) for tokens in ended + cut]
    return sorted(
        ((total / penalty(len(tokens), *rule), total, tokens) for total, tokens in totals),
        reverse=True,
    )


@pytest.mark.parametrize("rule", [(0.0, "wu"), (0.6, "wu"), (1.3, "wu"), (1.0, "mean")])
def test_a_full_beam_is_exhaustive_search(rule: tuple) -> None:
    vocabulary, limit = 6, 3  # three letters and EOS: 13 sentences end, 27 are cut
    model = table(vocabulary, seed=2)
    ours = found(model, SENTENCES, [limit] * 3, 40, penalty=LengthPenalty(*rule))
    for b, sentence in enumerate(SENTENCES):
        expected = exhaustive(model, sentence, vocabulary, limit, LengthPenalty(*rule))
        assert len(expected) == 40
        assert_same(hypotheses(ours, b), expected)


def by_loop(
    model: Table, sentence: int, limit: int, beams: int, rule: LengthPenalty, stop: str
) -> list[tuple[float, float, list[int]]]:
    """The search as its docstring tells it, with lists."""
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, float, list[int]]] = []
    for length in range(1, limit + 1):
        candidates = [
            (total + gained, [*tokens, token])
            for total, tokens in live
            for token, gained in enumerate(model.log_probs(sentence, tokens))
            if gained > -np.inf
        ]
        candidates = sorted(candidates, key=lambda one: -one[0])[: 2 * beams]
        for total, tokens in candidates[:beams]:
            if tokens[-1] == EOS or length == limit:
                finished.append((total / penalty(length, *rule), total, tokens))
        finished = sorted(finished, key=lambda one: -one[0])[:beams]
        live = [one for one in candidates if one[1][-1] != EOS][:beams]
        if len(finished) == beams:
            ends_at = limit if stop == "never" else length
            if stop == "first" or live[0][0] / penalty(ends_at, *rule) <= finished[-1][0]:
                break
    return finished


@pytest.mark.parametrize("stop", ["never", "heuristic", "first"])
@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize(
    ("rule", "eos"),
    [((0.0, "wu"), 0.0), ((0.6, "wu"), 1.0), ((2.0, "wu"), -1.0), ((1.0, "mean"), 2.0)],
)
def test_a_beam_is_the_plain_loop(beams: int, rule: tuple, eos: float, stop: str) -> None:
    model = table(9, seed=beams, eos=eos)
    max_lengths = [7, 4, 9]
    ours = found(model, SENTENCES, max_lengths, beams, penalty=LengthPenalty(*rule), stop=stop)
    for b, sentence in enumerate(SENTENCES):
        expected = by_loop(model, sentence, max_lengths[b], beams, LengthPenalty(*rule), stop)
        assert_same(hypotheses(ours, b), expected)


def test_a_later_stop_finds_no_worse() -> None:
    model = table(9, seed=1, eos=1.5)
    rules = {
        other: hypotheses(
            found(model, [5], [12], 3, penalty=LengthPenalty(1.5, "mean"), stop=other), 0
        )
        for other in ("never", "heuristic", "first")
    }
    best = {name: found_by[0][0] for name, found_by in rules.items()}
    assert best["never"] >= best["heuristic"] >= best["first"]
    assert best["never"] > best["first"]


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize(
    "penalty", [LengthPenalty(0.0), LengthPenalty(0.6), LengthPenalty(1.0, "mean")]
)
def test_beam_one_that_ends_first_is_greedy(penalty: LengthPenalty, seed: int) -> None:
    model = table(8, seed=seed, eos=0.5)
    max_lengths = jnp.asarray([6, 11, 0])
    both = [
        search(
            model.step,
            *start(SENTENCES, 1),
            max_lengths,
            max_len=11,
            specials=SPECIALS,
            banned=BANNED,
            penalty=penalty,
            with_attention=True,
        )
        for search in (greedy, partial(beam_search, beams=1, stop="first"))
    ]
    one, other = jax.device_get(both)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_allclose(one.scores[:2], other.scores[:2], rtol=1e-6)
    np.testing.assert_allclose(one.attention, other.attention)


def test_a_sentence_does_not_depend_on_its_neighbours() -> None:
    model = table(9, seed=4)
    together = found(model, SENTENCES, [3, 8, 5], 4, penalty=LengthPenalty(0.6))
    for b, (sentence, limit) in enumerate(zip(SENTENCES, [3, 8, 5], strict=True)):
        alone = found(model, [sentence], [limit], 4, penalty=LengthPenalty(0.6))
        assert_same(hypotheses(together, b), hypotheses(alone, 0))


def test_limits_and_padding() -> None:
    """A cut sentence is as long as its limit; one of limit 0 is empty; after EOS comes PAD."""
    model = table(9, seed=5, eos=-30.0)
    ours = found(model, SENTENCES, [0, 4, 6], 3)
    np.testing.assert_array_equal(ours.scores[0], [0, -np.inf, -np.inf])
    assert (ours.tokens[0] == PAD).all()
    assert (ours.lengths[0] == 0).all()
    np.testing.assert_array_equal(ours.lengths[1:], [[4] * 3, [6] * 3])
    assert not np.isin(ours.tokens, [BOS, EOS]).any()
    ours = found(table(9, seed=5, eos=3.0), SENTENCES, [6] * 3, 3)
    for tokens, length in zip(ours.tokens.reshape(9, -1), ours.lengths.reshape(9), strict=True):
        assert tokens[length - 1] == EOS
        assert (tokens[length:] == PAD).all()


def test_weights_are_those_of_the_path() -> None:
    model = table(9, seed=6, eos=0.5)
    ours = found(model, SENTENCES, [7, 5, 8], 4, penalty=LengthPenalty(0.6), with_attention=True)
    for b, sentence in enumerate(SENTENCES):
        for w, (_, _, tokens) in enumerate(hypotheses(ours, b)):
            for t in range(len(tokens)):
                expected = model.attention[model.row(sentence, tokens[:t])]
                np.testing.assert_array_equal(ours.attention[b, w, t], expected)
            assert (ours.attention[b, w, len(tokens) :] == 0).all()


@pytest.mark.parametrize("rules", [(), (Temperature(np.float32(1.7)),)])
def test_each_token_has_the_models_own_log_probability(rules: tuple) -> None:
    model = table(9, seed=6, eos=0.5)
    ours = found(model, SENTENCES, [7, 5, 8], 4, penalty=LengthPenalty(0.6), processors=rules)
    for b, sentence in enumerate(SENTENCES):
        for w, (_, total, tokens) in enumerate(hypotheses(ours, b)):
            gains = ours.token_log_probs[b, w]
            np.testing.assert_allclose(gains, model.by_token(sentence, tokens, 8), atol=1e-5)
            assert gains.sum() == pytest.approx(total, rel=1e-5)


def test_all_found_are_different_and_scored_by_the_model() -> None:
    model = table(9, seed=7)
    ours = found(model, SENTENCES, [8] * 3, 5, penalty=LengthPenalty(0.9))
    for b, sentence in enumerate(SENTENCES):
        got = hypotheses(ours, b)
        assert len({tuple(tokens) for _, _, tokens in got}) == len(got) == 5
        for score, total, tokens in got:
            assert total == pytest.approx(model.total(sentence, tokens), rel=1e-4)
            assert score == pytest.approx(total / penalty(len(tokens), 0.9), rel=1e-5)


def test_one_compilation_a_shape() -> None:
    model = table(9, seed=8)
    traces = 0

    @partial(jax.jit, static_argnames="max_len")
    def search(memory, cache, max_lengths, alpha, *, max_len):
        nonlocal traces
        traces += 1
        options = {
            "beams": 3,
            "max_len": max_len,
            "specials": SPECIALS,
            "banned": BANNED,
            "penalty": LengthPenalty(alpha),
        }
        return beam_search(model.step, memory, cache, max_lengths, **options).tokens

    for sentences, max_lengths, alpha in (([1, 2], [3, 4], 0.0), ([7, ROWS - 1], [5, 1], 0.6)):
        search(*start(sentences, 3), jnp.asarray(max_lengths), alpha, max_len=5)
    assert traces == 1


def test_what_is_shown_so_far_may_have_ended() -> None:
    limit = 12
    search = beam_parts(
        table(7).step,
        *start(SENTENCES, 3),
        jnp.full(len(SENTENCES), limit),
        beams=3,
        max_len=limit,
        specials=SPECIALS,
        banned=BANNED,
    )
    state = search.start()._replace(cache=search.init_cache(limit))
    advance = jax.jit(search.advance)
    while not state.done.all():
        state = advance(state)
        assert EOS not in np.asarray(search.so_far(state))
    # When no live hypothesis can win any more, it is the result that is shown.
    result = jax.device_get(search.result(state))
    shown = np.asarray(search.so_far(state))
    for b, length in enumerate(result.lengths[:, 0]):
        assert length < limit
        expected = result.tokens[b, 0, : length - 1].tolist()
        assert shown[b].tolist() == expected + [PAD] * (limit - len(expected))
