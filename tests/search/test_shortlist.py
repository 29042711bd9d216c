"""A search with shortlists against the plain loops, in which other tokens have the logit -inf."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config.search import SearchOptions
from encdec.search.interface import Processor
from encdec.search.loop import unroll
from encdec.search.methods import Sentences, parts, split
from encdec.search.shortlist import numbers
from tests.search import rules
from tests.search.rules import Rule
from tests.search.stubs import EOS, PAD, SPECIALS, Table, start, table
from tests.search.test_beam import by_loop

SENTENCES = [5, 17, 101]
LIMITS = [7, 4, 9]
V = 23
SHORTLIST = np.array(
    [
        [0, 2, 4, 5, 3, 7, 8, 11, 19, 20, 22, -1, -1],
        [0, 2, 4, 5, 1, 3, 6, 7, 8, 9, 13, 14, 21],
        [0, 2, 4, 5, 7, 9, 10, 12, -1, -1, -1, -1, -1],
    ],
    np.int32,
)
"""Special ids first, which are 0, 2, 4 and 5 here."""
EVERYTHING = np.array([[0, 2, 4, 5, *({*range(V)} - {0, 2, 4, 5})]] * 3, np.int32)


@dataclass(frozen=True)
class _Masked:
    """A table of which a sentence has the tokens of its shortlist, under rules."""

    model: Table
    rules: list[Rule]

    def log_probs(self, sentence: int, prefix: list[int]) -> np.ndarray:
        allowed = SHORTLIST[SENTENCES.index(sentence)]
        mask = np.full(V, -np.inf, np.float32)
        mask[allowed[allowed >= 0]] = 0
        masked = self.model._replace(logits=self.model.logits + mask)
        return rules.applied(self.rules, masked.log_probs(sentence, prefix), prefix)


class _NoSeven(Processor):
    """A caller's rule that knows ids: 7 after nothing but 8."""

    def __call__(self, state: Any, log_probs: jax.Array, history: Any) -> tuple[Any, jax.Array]:
        is_seven = jnp.arange(log_probs.shape[-1]) == 7
        return state, jnp.where(is_seven & (history.last != 8)[..., None], -jnp.inf, log_probs)


def no_seven(log_probs: np.ndarray, tokens: list[int]) -> np.ndarray:
    return log_probs if tokens[-1:] == [8] else rules.forbid(log_probs, [7])


def found(
    model: Table,
    options: SearchOptions,
    shortlist: np.ndarray | None,
    banned: list[list[int]] = [],  # noqa: B006
    prefix: list[list[int]] | None = None,
    processors: tuple[Processor, ...] = (),
) -> Any:
    static, arrays = split(
        options, SPECIALS, max_len=9, banned=banned, processors=processors, vocabulary=V
    )
    each: Any = (
        np.array(LIMITS, np.int32),
        np.arange(3, dtype=np.uint32),
        np.array(prefix if prefix else np.zeros((3, 0)), np.int32),
    )
    sentences = Sentences(*each, shortlist=shortlist)

    def step(memory: Any, cache: Any, ids: Any) -> Any:
        logits, attention, cache = model.step(memory, cache, ids)
        if shortlist is not None:
            chosen = jnp.take_along_axis(logits, jnp.maximum(shortlist, 0)[:, None], 2)
            logits = jnp.where(shortlist[:, None] >= 0, chosen, -jnp.inf)
        return logits, attention, cache

    def search(sentences: Sentences, arrays: Any) -> Any:
        return unroll(parts(step, *start(SENTENCES, options.beam), sentences, arrays, static))

    return jax.device_get(jax.jit(search)(sentences, arrays))


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        (SearchOptions(beam=4), []),
        (SearchOptions(beam=3, min_length=4, no_repeat_ngram=2, repetition_penalty=1.7), [
            *(rules.min_length(4), rules.no_repeat_ngram(2), rules.repetition_penalty(1.7))
        ]),
        (SearchOptions(beam=3, ban=("",), ban_unknown=True), [
            # 15 and 16 are not in any shortlist.
            rules.banned([7], [3, 8], [15, 9], [9, 16], [11, 20], [5])
        ]),
    ],
    ids=["beam", "rules", "bans"],
)  # fmt: skip
def test_a_beam_is_the_plain_loop_on_masked_logits(options: SearchOptions, plain: Any) -> None:
    model = table(V, seed=4, eos=0.5)
    banned = [[7], [3, 8], [15, 9], [9, 16], [11, 20]] if options.ban else []
    ours = found(model, options, SHORTLIST, banned)
    for b, sentence in enumerate(SENTENCES):
        masked: Any = _Masked(model, plain)
        expected = by_loop(masked, sentence, LIMITS[b], options.beam, (0.6, "wu"), "never")
        taken = np.isfinite(ours.scores[b]).sum()
        assert taken == len(expected)
        for w, (score, _, tokens) in enumerate(expected):
            assert ours.tokens[b, w, : ours.lengths[b, w]].tolist() == tokens
            assert (ours.tokens[b, w, len(tokens) :] == PAD).all()
            assert ours.scores[b, w] == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("ruled", [False, True])
def test_greedy_with_a_prefix_and_a_rule_of_ones_own(ruled: bool) -> None:
    model = table(V, seed=2, eos=-1.0)
    prefix = [[19, 8, -1], [13, -1, -1], [-1, -1, -1]]
    processors = (_NoSeven(),) if ruled else ()
    ours = found(model, SearchOptions(beam=1), SHORTLIST, prefix=prefix, processors=processors)
    for b, sentence in enumerate(SENTENCES):
        forced = [token for token in prefix[b] if token >= 0]
        masked = _Masked(model, [*([no_seven] if ruled else []), rules.forced_prefix(forced)])
        tokens: list[int] = []
        while len(tokens) < LIMITS[b] and EOS not in tokens:
            tokens.append(int(masked.log_probs(sentence, tokens).argmax()))
        assert ours.tokens[b, 0, : ours.lengths[b, 0]].tolist() == tokens
        plain = _Masked(model, [])
        gains = [plain.log_probs(sentence, tokens[:t])[x] for t, x in enumerate(tokens)]
        assert ours.log_probs[b, 0] == pytest.approx(sum(gains), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(beam=4, beam_groups=2),
        SearchOptions(beam=3, sample=True, seed=7, temperature=1.3, top_p=0.9),
    ],
    ids=["groups", "draws"],
)
def test_a_shortlist_of_all_tokens_changes_nothing(options: SearchOptions) -> None:
    model = table(V, seed=3)
    expected, ours = (found(model, options, each) for each in (None, EVERYTHING))
    np.testing.assert_array_equal(ours.tokens, expected.tokens)
    np.testing.assert_allclose(ours.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(ours.token_log_probs, expected.token_log_probs, atol=1e-5)


def test_draws_do_not_depend_on_the_order_and_room_of_a_shortlist() -> None:
    model, options = table(V, seed=3), SearchOptions(beam=2, sample=True)
    other = SHORTLIST[:, [0, 1, 2, 3, *range(12, 3, -1)]]
    other = np.pad(other, [(0, 0), (0, 5)], constant_values=-1)
    one, two = (found(model, options, each) for each in (SHORTLIST, other))
    np.testing.assert_array_equal(one.tokens, two.tokens)


def test_numbers_of_marks_and_absent_tokens() -> None:
    ids = np.array([[[3, -1, 6]], [[13, -2, 22]], [[12, 0, 4]]], np.int32)
    ours = numbers(jnp.asarray(SHORTLIST), jnp.asarray(ids))
    assert ours.tolist() == [[[4, -1, -3]], [[10, -2, -3]], [[7, 0, 2]]]
