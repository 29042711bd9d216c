"""Processors against plain NumPy, in every search; what a state, a key and a prefix must do."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config.search import SearchOptions
from encdec.search.beam import beam_search
from encdec.search.interface import History, Processor, init_states, process
from encdec.search.processors import ForcedPrefix, MinLength, from_options
from encdec.search.sampling import greedy, sample
from encdec.search.types import LengthPenalty
from encdec.types import InputError
from tests.search import rules
from tests.search.rules import Rule
from tests.search.stubs import BANNED, BOS, EOS, PAD, SPECIALS, UNK, Table, start, table

SENTENCES = [5, 17, 101]
B, W, T, V = 3, 2, 9, 11
PHRASES = [[7], [3, 8], [9, 9, 1], [6, 10]]
CASES: dict[str, tuple[SearchOptions, list[Rule]]] = {
    "min length": (SearchOptions(min_length=4), [rules.min_length(4)]),
    "banned": (SearchOptions(ban=("a", "b", "c", "d")), [rules.banned(*PHRASES)]),
    "unknown": (SearchOptions(ban_unknown=True), [rules.banned([UNK])]),
    "no token twice": (SearchOptions(no_repeat_ngram=1), [rules.no_repeat_ngram(1)]),
    "no bigram twice": (SearchOptions(no_repeat_ngram=2), [rules.no_repeat_ngram(2)]),
    "no trigram twice": (SearchOptions(no_repeat_ngram=3), [rules.no_repeat_ngram(3)]),
    "repetition": (SearchOptions(repetition_penalty=1.7), [rules.repetition_penalty(1.7)]),
    "temperature": (SearchOptions(temperature=0.6), [rules.temperature(0.6)]),
    "top-k": (SearchOptions(top_k=3), [rules.top_k(3)]),
    "top-p": (SearchOptions(top_p=0.7), [rules.top_p(0.7)]),
    "all": (
        SearchOptions(
            min_length=5,
            ban=("a", "b", "c", "d"),
            no_repeat_ngram=2,
            repetition_penalty=1.2,
            temperature=2.0,
            top_k=6,
            top_p=0.9,
        ),
        [
            *(rules.min_length(5), rules.banned(*PHRASES), rules.no_repeat_ngram(2)),
            *(rules.repetition_penalty(1.2), rules.temperature(2.0), rules.top_k(6)),
            rules.top_p(0.9),
        ],
    ),
}


def made(options: SearchOptions) -> tuple[Processor, ...]:
    return from_options(options, SPECIALS, PHRASES if options.ban else [])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize(("options", "expected"), CASES.values(), ids=CASES)
def test_each_is_its_rule_while_hypotheses_are_reordered(
    options: SearchOptions, expected: list[Rule]
) -> None:
    """As a beam does: at each step, hypotheses continue others than those in their own place."""
    processors, rng = made(options), np.random.default_rng(0)
    tokens = np.full((B, W, T), PAD, np.int32)
    states = init_states(processors, History(jnp.asarray(tokens), jnp.int32(0)))
    run = jax.jit(process, static_argnums=4)
    for t in range(T):
        log_probs = log_softmax(rng.normal(0, 2, (B, W, V)))
        log_probs[..., [PAD, BOS]] = -np.inf
        history = History(jnp.asarray(tokens), jnp.int32(t))
        states, ours = run(processors, states, jnp.float32(log_probs), history, EOS)
        for b, w in np.ndindex(B, W):
            so_far = tokens[b, w, :t].tolist()
            plain = rules.applied(expected, log_probs[b, w], so_far)
            np.testing.assert_allclose(ours[b, w], plain, rtol=1e-4, atol=1e-5)
        parents = rng.integers(0, W, (B, W))
        chosen = (np.arange(B)[:, None], parents)
        states = [jax.tree.map(lambda x, chosen=chosen: x[chosen], state) for state in states]
        states, tokens = tuple(states), tokens[chosen]
        tokens[:, :, t] = rng.choice([1, 3, 7, 8, 9], (B, W))  # few, so that they repeat


@pytest.mark.parametrize(("options", "expected"), CASES.values(), ids=CASES)
def test_greedy_search_obeys(options: SearchOptions, expected: list[Rule]) -> None:
    model = table(V, seed=1, eos=-1.0)
    search = partial(
        greedy, model.step, max_len=T, specials=SPECIALS, banned=BANNED, penalty=LengthPenalty(0.6)
    )
    ours = jax.device_get(
        jax.jit(search)(*start(SENTENCES, 1), jnp.array([9, 6, 8]), processors=made(options))
    )
    for b, (sentence, limit) in enumerate(zip(SENTENCES, [9, 6, 8], strict=True)):
        tokens: list[int] = []
        while len(tokens) < limit and EOS not in tokens:
            log_probs = rules.applied(expected, model.log_probs(sentence, tokens), tokens)
            tokens.append(int(log_probs.argmax()))
        assert ours.tokens[b, 0].tolist() == tokens + [PAD] * (T - len(tokens))
        assert_scored(ours, b, 0, model, expected, sentence, tokens, 0.6)


def assert_scored(ours, b, w, model, expected, sentence, tokens, alpha) -> None:
    """Scores are of the processed log-probabilities, log_probs are the model's own."""
    score = rules.total(model, expected, sentence, tokens) / ((5 + len(tokens)) / 6) ** alpha
    assert ours.scores[b, w] == pytest.approx(score, rel=1e-4, abs=1e-5)
    assert ours.log_probs[b, w] == pytest.approx(model.total(sentence, tokens), rel=1e-4)


def exhaustive(model: Table, expected: list[Rule], sentence: int, limit: int, alpha: float):
    """Every hypothesis that rules allow: it ends within the limit, or is cut there."""
    letters = [t for t in range(8) if t not in (PAD, BOS, EOS)]
    ended = [[*body, EOS] for n in range(limit) for body in itertools.product(letters, repeat=n)]
    cut = [list(body) for body in itertools.product(letters, repeat=limit)]
    totals = [(rules.total(model, expected, sentence, one), one) for one in ended + cut]
    allowed = [(t / ((5 + len(one)) / 6) ** alpha, one) for t, one in totals if t > -np.inf]
    return [one for _, one in sorted(allowed, reverse=True)]


@pytest.mark.parametrize(
    ("options", "phrases", "expected"),
    [
        (
            SearchOptions(min_length=3, no_repeat_ngram=1),
            [],
            [rules.min_length(3), rules.no_repeat_ngram(1)],
        ),
        (
            SearchOptions(repetition_penalty=2.0, temperature=1.5),
            [],
            [rules.repetition_penalty(2.0), rules.temperature(1.5)],
        ),
        (SearchOptions(top_k=4), [[7], [3, 6]], [rules.banned([7], [3, 6]), rules.top_k(4)]),
    ],
)
def test_a_full_beam_is_brute_force_over_all_that_is_allowed(options, phrases, expected) -> None:
    model, beams, limit = table(8, seed=2), 160, 3  # 5 letters: 31 hypotheses end, 125 are cut
    search = jax.jit(
        partial(
            beam_search,
            model.step,
            beams=beams,
            max_len=limit,
            specials=SPECIALS,
            banned=BANNED,
            penalty=LengthPenalty(0.9),
        )
    )
    processors = from_options(options, SPECIALS, phrases)
    limits = jnp.full(len(SENTENCES), limit)
    ours = jax.device_get(search(*start(SENTENCES, beams), limits, processors=processors))
    for b, sentence in enumerate(SENTENCES):
        best = exhaustive(model, expected, sentence, limit, 0.9)
        assert 10 < len(best) == np.isfinite(ours.scores[b]).sum()
        for w, tokens in enumerate(best):
            assert ours.tokens[b, w, : ours.lengths[b, w]].tolist() == tokens
            assert_scored(ours, b, w, model, expected, sentence, tokens, 0.9)


class NoEcho(Processor):
    """A token is less likely, by a factor, where it is as odd or even as the sum of all before."""

    factor: float

    def init(self, history: History) -> jax.Array:
        return jnp.zeros(history.tokens.shape[:2], jnp.int32)

    def __call__(self, state, log_probs, history):
        state = state + jnp.maximum(history.last, 0)
        echoes = (jnp.arange(log_probs.shape[-1]) + state[..., None]) % 2 == 0
        return state, jnp.where(echoes, self.factor * log_probs, log_probs)


def no_echo(factor: float) -> Rule:
    def rule(log_probs: np.ndarray, tokens: list[int]) -> np.ndarray:
        echoes = (np.arange(len(log_probs)) + sum(tokens)) % 2 == 0
        return np.where(echoes, factor * log_probs, log_probs)

    return rule


def by_loop(model: Table, expected: list[Rule], sentence: int, limit: int, beams: int):
    """Tokens of the best hypotheses that a beam finishes, best first; no length penalty."""
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, limit + 1):
        candidates = []
        for so_far, tokens in live:
            log_probs = rules.applied(expected, model.log_probs(sentence, tokens), tokens)
            for token, gained in enumerate(log_probs):
                if gained > -np.inf:
                    candidates.append((so_far + gained, [*tokens, token]))
        candidates = sorted(candidates, key=lambda one: -one[0])[: 2 * beams]
        finished += [one for one in candidates[:beams] if one[1][-1] == EOS or length == limit]
        live = [one for one in candidates if one[1][-1] != EOS][:beams]
    return [tokens for _, tokens in sorted(finished, key=lambda one: -one[0])[:beams]]


@pytest.mark.parametrize(
    ("processors", "expected"),
    [
        ([NoEcho(2.5)], [no_echo(2.5)]),
        (from_options(CASES["all"][0], SPECIALS, PHRASES), CASES["all"][1]),
    ],
    ids=["own state", "all"],
)
def test_a_beam_is_the_plain_loop_and_a_state_follows_its_hypothesis(processors, expected) -> None:
    model, limits, beams = table(V, seed=3, eos=0.5), [8, 5, 9], 4
    search = jax.jit(
        partial(beam_search, model.step, beams=beams, max_len=9, specials=SPECIALS, banned=BANNED)
    )
    ours = jax.device_get(
        search(*start(SENTENCES, beams), jnp.array(limits), processors=processors)
    )
    for b, (sentence, limit) in enumerate(zip(SENTENCES, limits, strict=True)):
        loop = by_loop(model, expected, sentence, limit, beams)
        assert loop
        for w, tokens in enumerate(loop):
            assert ours.tokens[b, w, : ours.lengths[b, w]].tolist() == tokens
            assert_scored(ours, b, w, model, expected, sentence, tokens, 0.0)


@pytest.mark.parametrize("name", ["no token twice", "temperature", "top-k", "top-p", "all"])
def test_sampling_obeys(name: str) -> None:
    """Second tokens, given the first that most draws have: within five standard deviations."""
    options, expected = CASES[name]
    model, count = table(V, seed=2, spread=1.0, eos=-9.0), 20_000
    search = jax.jit(
        partial(sample, model.step, samples=count, max_len=2, specials=SPECIALS, banned=BANNED)
    )
    keys = jax.random.split(jax.random.key(11), 1)
    result = search(*start([5], count), jnp.full(1, 2), keys, processors=made(options))
    drawn = np.asarray(result.tokens)[0]
    first = int(np.bincount(drawn[:, 0]).argmax())
    second = drawn[drawn[:, 0] == first, 1]
    powers = np.exp(rules.applied(expected, model.log_probs(5, [first]), [first]))
    probabilities = powers / powers.sum()
    deviations = np.sqrt(probabilities * (1 - probabilities) / len(second))
    fractions = np.bincount(second, minlength=V) / len(second)
    assert (np.abs(fractions - probabilities) <= 5 * deviations).all()


def test_draws_do_not_depend_on_the_batch() -> None:
    model, processors = table(V, seed=5), made(CASES["all"][0])
    keys = jax.random.split(jax.random.key(3), 3)
    search = jax.jit(
        partial(sample, model.step, samples=4, max_len=6, specials=SPECIALS, banned=BANNED)
    )
    limits = jnp.full(3, 6)
    together, again = (
        search(*start(SENTENCES, 4), limits, keys, processors=processors).tokens for _ in range(2)
    )
    single = search(*start(SENTENCES[1:2], 4), limits[:1], keys[1:2], processors=processors)
    np.testing.assert_array_equal(together, again)
    np.testing.assert_array_equal(together[1], single.tokens[0])


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_a_prefix_is_forced_for_each_sentence_and_then_the_search_is_free(method: str) -> None:
    """Also against a ban: what is forced has the last word."""
    model, beams = table(V, seed=6, eos=1.0), 1 if method == "greedy" else 3
    prefixes = [[7, 7, 8], [], [1]]
    padded = np.array([[7, 7, 8, -1], [-1] * 4, [1, -1, -1, -1]], np.int32)
    processors = [*from_options(SearchOptions(ban=("",)), SPECIALS, [[7]]), ForcedPrefix(padded)]
    common = {"max_len": 8, "specials": SPECIALS, "banned": BANNED, "processors": processors}
    search = {
        "greedy": greedy,
        "sample": partial(sample, samples=beams, keys=jax.random.split(jax.random.key(0), 3)),
        "beam": partial(beam_search, beams=beams),
    }[method]
    ours = jax.device_get(
        search(model.step, *start(SENTENCES, beams), max_lengths=jnp.full(3, 8), **common)
    )
    for b, prefix in enumerate(prefixes):
        expected = [rules.banned([7]), rules.forced_prefix(prefix)]
        for w in range(beams):
            tokens = ours.tokens[b, w, : ours.lengths[b, w]].tolist()
            assert tokens[: len(prefix)] == prefix
            assert 7 not in tokens[len(prefix) :]
            own = model.total(SENTENCES[b], tokens)
            assert ours.log_probs[b, w] == pytest.approx(own, rel=1e-4)
            ranked = (
                own if method == "sample" else rules.total(model, expected, SENTENCES[b], tokens)
            )
            assert ours.scores[b, w] == pytest.approx(ranked, rel=1e-4)
        if method == "beam":
            loop = by_loop(model, expected, SENTENCES[b], 8, beams)
            assert ours.tokens[b, 0, : ours.lengths[b, 0]].tolist() == loop[0]


def test_a_hypothesis_that_is_left_no_token_ends() -> None:
    model = table(V, seed=7)
    everything = [[t] for t in range(V)]
    for processors in (
        from_options(SearchOptions(), SPECIALS, everything),
        from_options(SearchOptions(temperature=2.0, top_p=0.5), SPECIALS, everything),
    ):
        for search in (greedy, partial(beam_search, beams=2)):
            beams = 1 if search is greedy else 2
            result = search(
                model.step,
                *start(SENTENCES, beams),
                jnp.full(3, 4),
                max_len=4,
                specials=SPECIALS,
                banned=BANNED,
                processors=processors,
            )
            assert result.tokens[:, 0].tolist() == [[EOS, PAD, PAD, PAD]] * 3
            own = [model.log_probs(sentence, [])[EOS] for sentence in SENTENCES]
            np.testing.assert_allclose(result.scores[:, 0], own, rtol=1e-5)


# The next class is the README's example of a rule of one's own.
class NoStutter(Processor):
    """No token comes twice in a row."""

    def __call__(self, state, log_probs, history):
        is_last = jnp.arange(log_probs.shape[-1]) == history.last[..., None]
        return state, jnp.where(is_last, -jnp.inf, log_probs)


def test_a_rule_of_ones_own() -> None:
    model = table(V, seed=8, eos=-3.0)
    search = partial(beam_search, model.step, beams=5, max_len=12, specials=SPECIALS, banned=BANNED)
    free, ruled = (
        search(*start(SENTENCES, 5), jnp.full(3, 12), processors=processors).tokens
        for processors in ([], [NoStutter()])
    )

    def stutters(tokens: jax.Array) -> bool:
        return bool(((tokens[..., 1:] == tokens[..., :-1]) & (tokens[..., 1:] != PAD)).any())

    assert stutters(free)
    assert not stutters(ruled)


def test_values_change_without_compiling_again_and_defaults_cost_nothing() -> None:
    model, traces = table(V, seed=9), 0

    @jax.jit
    def search(memory, cache, processors):
        nonlocal traces
        traces += 1
        limits = jnp.full(len(SENTENCES), 5)
        common = {
            "beams": 2,
            "max_len": 5,
            "specials": SPECIALS,
            "banned": BANNED,
            "processors": processors,
        }
        return beam_search(model.step, memory, cache, limits, **common).scores

    scores = [
        search(*start(SENTENCES, 2), made(SearchOptions(temperature=t, min_length=n, top_p=p)))
        for t, n, p in ((0.5, 2, 0.4), (2.0, 4, 0.8))
    ]
    assert traces == 1
    assert not np.allclose(*scores)
    assert made(SearchOptions(top_k=0, top_p=1.0, temperature=1.0)) == ()


def test_without_processors_no_tokens_so_far_are_kept() -> None:
    def carried(processors: list[Processor]) -> int:
        """How many arrays [B, W, T] the loop carries."""
        search = partial(
            beam_search,
            table(V).step,
            beams=2,
            max_len=5,
            specials=SPECIALS,
            banned=BANNED,
            processors=processors,
        )
        jaxpr = jax.make_jaxpr(search)(*start(SENTENCES, 2), jnp.full(3, 5))
        (loop,) = [equation for equation in jaxpr.eqns if equation.primitive.name == "while"]
        return [variable.aval.shape for variable in loop.outvars].count((3, 2, 5))

    assert carried([]) == 3  # of the steps: tokens, where each came from, log-probabilities
    assert carried([MinLength(np.int32(2), np.int32(EOS))]) == 4


class Wrong(Processor):
    def __call__(self, state, log_probs, history):
        return state, log_probs[..., :-1]


class Stateful(Processor):
    def init(self, history: History) -> jax.Array:
        return jnp.zeros(3)


class Stateless(Processor):
    def __call__(self, state, log_probs, history):
        return log_probs


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (Wrong(), "Wrong returned float32"),
        (Stateful(), r"Stateful.init .* \[B, W\]"),
        (Stateless(), r"Stateless returned .*: it must return \(state, log_probs\)"),
    ],
)
def test_a_rule_of_the_wrong_shape_is_named(processor: Processor, message: str) -> None:
    model = table(V)
    with pytest.raises(InputError, match=message):
        greedy(
            model.step,
            *start(SENTENCES, 1),
            jnp.full(3, 4),
            max_len=4,
            specials=SPECIALS,
            banned=BANNED,
            processors=[processor],
        )
