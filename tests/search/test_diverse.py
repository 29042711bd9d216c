"""Diverse beam search against a plain loop, and against beam search where the two are the same."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config.search import SearchOptions
from encdec.search.beam import beam_search
from encdec.search.diverse import diverse_beam_search
from encdec.search.processors import from_options
from encdec.search.types import LengthPenalty, SearchResult
from encdec.types import InputError, Kept
from tests.search import rules
from tests.search.rules import Rule
from tests.search.stubs import BANNED, EOS, SPECIALS, Table, start, table

SENTENCES = [5, 17, 101]
LIMITS = [7, 4, 9]
Hypothesis = tuple[float, float, list[int]]


def found(model: Table, beams: int, groups: int, diversity: float, **options) -> SearchResult:
    search = jax.jit(
        partial(
            diverse_beam_search,
            model.step,
            beams=beams,
            groups=groups,
            max_len=max(LIMITS),
            specials=SPECIALS,
            banned=BANNED,
            **options,
        )
    )
    memory, caches = start(SENTENCES, beams)
    return jax.device_get(
        search(memory, caches, jnp.asarray(LIMITS), diversity=jnp.float32(diversity))
    )


def by_loop(
    model: Table,
    sentence: int,
    limit: int,
    size: int,
    groups: int,
    diversity: float,
    alpha: float,
    stop: str,
    ruled: list[Rule],
) -> list[Hypothesis]:
    """Groups of beams, one after another at each step; (score, log-probability, tokens)."""
    live = [[(0.0, list[int]())] for _ in range(groups)]
    finished: list[list[Hypothesis]] = [[] for _ in range(groups)]
    done = [False] * groups
    for length in range(1, limit + 1):
        taken = np.zeros(model.logits.shape[1])
        for g in range(groups):
            if done[g]:
                continue
            candidates = []
            for total, tokens in live[g]:
                gains = rules.applied(ruled, model.log_probs(sentence, tokens), tokens)
                candidates += [
                    (total + gain - diversity * taken[token], [*tokens, token])
                    for token, gain in enumerate(gains)
                    if gain > -np.inf
                ]
            candidates = sorted(candidates, key=lambda one: -one[0])[: 2 * size]
            for total, tokens in candidates[:size]:
                if tokens[-1] == EOS or length == limit:
                    score = total / ((5 + length) / 6) ** alpha
                    finished[g].append((score, model.total(sentence, tokens), tokens))
            finished[g] = sorted(finished[g], key=lambda one: -one[0])[:size]
            live[g] = [one for one in candidates if one[1][-1] != EOS][:size]
            for _, tokens in live[g]:
                taken[tokens[-1]] += 1
            if len(finished[g]) == size:
                ends_at = limit if stop == "never" else length
                best = live[g][0][0] / ((5 + ends_at) / 6) ** alpha
                done[g] = stop == "first" or best <= finished[g][-1][0]
    return sorted((one for group in finished for one in group), key=lambda one: -one[0])


def hypotheses(result: SearchResult, b: int) -> list[Hypothesis]:
    return [
        (
            float(result.scores[b, w]),
            float(result.log_probs[b, w]),
            result.tokens[b, w, : result.lengths[b, w]].tolist(),
        )
        for w in range(result.scores.shape[1])
        if np.isfinite(result.scores[b, w])
    ]


@pytest.mark.parametrize("stop", ["never", "heuristic", "first"])
@pytest.mark.parametrize(
    ("beams", "groups", "options"),
    [
        (6, 3, SearchOptions()),
        (3, 3, SearchOptions(no_repeat_ngram=1)),
        (6, 2, SearchOptions(repetition_penalty=1.7, min_length=3)),
    ],
)
def test_it_is_the_plain_loop(beams: int, groups: int, options: SearchOptions, stop: str) -> None:
    model = table(9, seed=beams, eos=0.5)
    ruled: list[Rule] = []
    if options.min_length:
        ruled.append(rules.min_length(options.min_length))
    if options.no_repeat_ngram:
        ruled.append(rules.no_repeat_ngram(options.no_repeat_ngram))
    if options.repetition_penalty != 1:
        ruled.append(rules.repetition_penalty(options.repetition_penalty))
    processors = from_options(options, SPECIALS)
    ours = found(
        *(model, beams, groups, 0.8),
        penalty=LengthPenalty(0.6),
        stop=stop,
        processors=processors,
    )
    for b, (sentence, limit) in enumerate(zip(SENTENCES, LIMITS, strict=True)):
        expected = by_loop(
            *(model, sentence, limit, beams // groups, groups, 0.8, 0.6, stop, ruled)
        )
        one, other = hypotheses(ours, b), expected
        assert [tokens for *_, tokens in one] == [tokens for *_, tokens in other]
        for place in (0, 1):
            np.testing.assert_allclose(
                [x[place] for x in one], [x[place] for x in other], rtol=1e-4, atol=1e-5
            )


def test_groups_without_a_penalty_are_beams_of_their_size() -> None:
    model = table(9, seed=4)
    search = partial(beam_search, max_len=9, specials=SPECIALS, banned=BANNED)
    plain = search(model.step, *start(SENTENCES, 2), jnp.asarray(LIMITS), beams=2)
    ours = found(model, 6, 3, 0.0)
    for name in ("scores", "lengths"):
        np.testing.assert_allclose(
            getattr(ours, name), np.repeat(getattr(plain, name), 3, 1), rtol=1e-5
        )


def test_one_group_is_beam_search_with_its_attention() -> None:
    model = table(9, seed=4)
    options = {"max_len": 9, "specials": SPECIALS, "banned": BANNED, "with_attention": True}
    plain = beam_search(model.step, *start(SENTENCES, 3), jnp.asarray(LIMITS), beams=3, **options)
    ours = found(model, 3, 1, 0.7, with_attention=True)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), ours, jax.device_get(plain))


def test_what_groups_share_of_a_cache_is_kept_whole() -> None:
    """Rows of the table in places of a log that all hypotheses write, wider than the beam."""
    model, beams, room = table(9, seed=4), 4, 9

    def step(memory, cache, tokens):
        place, log = cache
        at = (jnp.arange(3)[:, None], place)
        logits, attention, row = model.step(memory, jnp.where(place < 0, 0, log.tree[at]), tokens)
        free = (log.tree[0] < 0).argmax()
        places = jnp.broadcast_to(free + jnp.arange(beams), place.shape)
        written = jax.lax.dynamic_update_slice(log.tree, row, (0, free))
        return logits, attention, (places, Kept(written))

    nothing = (jnp.full((3, beams), -1), Kept(jnp.full((3, beams * room), -1)))
    search = partial(diverse_beam_search, max_len=room, specials=SPECIALS, banned=BANNED)
    memory, _ = start(SENTENCES, beams)
    ours = search(
        *(step, memory, lambda _: nothing, jnp.asarray(LIMITS)),
        **{"beams": beams, "groups": 2, "diversity": jnp.float32(0.8)},
    )
    expected = found(model, beams, 2, 0.8)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), jax.device_get(ours), expected)


def test_a_penalty_makes_translations_differ() -> None:
    model = table(9, seed=4, eos=0.5)
    firsts = []
    for diversity in (0.0, 9.0):
        ours = found(model, 3, 3, diversity)
        firsts.append([len(set(ours.tokens[b, :, 0].tolist())) for b in range(3)])
    assert firsts[0] == [1, 1, 1]
    assert min(firsts[1]) > 1  # not always 3: the end is not avoided
    assert 3 in firsts[1]


def test_groups_must_divide_the_beam() -> None:
    with pytest.raises(InputError, match="beam_groups = 2 cannot be used with beam = 5"):
        SearchOptions(beam_groups=2)
    with pytest.raises(InputError, match="beam_groups = 2 cannot be used with sample"):
        SearchOptions(beam=4, beam_groups=2, sample=True)
    with pytest.raises(InputError, match="diversity_penalty = nan"):
        SearchOptions(diversity_penalty=float("nan"))
