"""Phrases that must appear: all texts that contain them, a plain beam and the free search agree."""

import itertools
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.config.search import SearchOptions
from encdec.data.surfaces import Surfaces
from encdec.search.automata import Spelling, automaton
from encdec.search.beam import beam_search
from encdec.search.candidates import Required
from encdec.search.phrases import PhraseTable, word_edges
from encdec.search.processors import from_options
from encdec.search.types import LengthPenalty
from tests.search.stubs import BANNED, EOS, SPECIALS, UNK, Table, start, table

SENTENCES = [5, 17, 101]
LETTERS = ["", "a", "", "b", "", "?", "c", "d", "e"]
"""What the tokens of one vocabulary add to a text that has no words."""
WORDS = ["", " a", "", "b", "", "?", ".", " ", "a", " ab"]
"""Of another, in which a text has words, and some several spellings."""


Found = list[tuple[float, list[int]]]
"""(score, tokens) of hypotheses, best first."""


def surfaces(table: Sequence[str]) -> Surfaces:
    return Surfaces([text.encode() for text in table])


def spelling(text: str, table: Sequence[str]) -> Spelling:
    """The longest tokens from the left, as a vocabulary does."""

    def cut(rest: str) -> list[int]:
        if not rest:
            return []
        fits = [i for i, token in enumerate(table) if token and rest.startswith(token)]
        best = max(fits, key=lambda i: len(table[i]))
        return [best, *cut(rest[len(table[best]) :])]

    space = " " if " " in "".join(table) else ""
    return Spelling(tuple(cut(space + text)), tuple(cut(space + text)))


def required(phrases: Sequence[Sequence[str]], table: Sequence[str], reserved: int = 0) -> Required:
    """Of each sentence, phrases whose alternatives have | between."""
    of = surfaces(table)
    rows = [
        [
            automaton(tuple(spelling(text, table) for text in phrase.split("|")), of)
            for phrase in row
        ]
        for row in phrases
    ]
    packed = PhraseTable(rows).batch(range(len(rows)), len(rows))
    assert packed is not None
    return Required(packed, word_edges(of), reserved)


def found(
    model: Table,
    sentences: Sequence[int],
    limits: Sequence[int],
    beams: int,
    must: Required | None,
    **options,
) -> list[Found]:
    """The hypotheses of each sentence."""
    options = {"max_len": max(limits), "specials": SPECIALS, "banned": BANNED, **options}

    @jax.jit
    def search(*args):
        *args, arrays = args
        required = None if must is None else Required(*arrays, must.reserved)
        return beam_search(model.step, *args, beams=beams, required=required, **options)

    arrays = None if must is None else must[:2]
    result = jax.device_get(search(*start([*sentences], beams), jnp.asarray(limits), arrays))
    return [
        [
            (result.scores[b, w], result.tokens[b, w, : result.lengths[b, w]].tolist())
            for w in range(beams)
            if np.isfinite(result.scores[b, w])
        ]
        for b in range(len(sentences))
    ]


def contains(tokens: Sequence[int], phrase: str, table: Sequence[str]) -> bool:
    """Whether the text has one of the alternatives, as a word where there are words."""
    text = "".join(table[i] for i in tokens)
    has_words = " " in "".join(table)

    def pattern(p: str) -> str:
        before, after = ("(?<![a-z])" * p[0].isalpha(), "(?![a-z])" * p[-1].isalpha())
        return before + re.escape(p) + after if has_words else re.escape(p)

    return any(re.search(pattern(p), text) for p in phrase.split("|"))


def needed(tokens: Sequence[int], phrases: Sequence[str]) -> int:
    """Letters that add all phrases which are lacking, one after another, without words."""
    text = "".join(LETTERS[i] for i in tokens)
    lacking = [p.split("|") for p in phrases if not contains(tokens, p, LETTERS)]
    full = [min(map(len, alternatives)) for alternatives in lacking]
    begun = [
        min(len(p) - n for p in alternatives for n in range(len(p)) if text.endswith(p[:n]))
        for alternatives in lacking
    ]
    return min((sum(full) - f + b for f, b in zip(full, begun, strict=True)), default=0)


def penalty(length: int) -> float:
    return ((5 + length) / 6) ** 0.6


def assert_same(ours: Found, expected: Found) -> None:
    assert [tokens for _, tokens in ours] == [tokens for _, tokens in expected]
    np.testing.assert_allclose([s for s, _ in ours], [s for s, _ in expected], rtol=1e-4)


# Of three sentences each.
PHRASES = {
    "one": [["b"], ["cc"], ["aab"]],
    "none beside some": [[], ["ca"], []],
    "two": [["a", "bc"], ["cc", "a"], ["c", "b"]],
    "shared tokens": [["ab", "bc"], ["aa", "ab"], ["cab", "bc"]],
    "one in another": [["b", "ab"], ["abc", "c"], ["abc", "ab"]],
    "twice": [["ab", "ab"], ["c", "c"], ["b", "b"]],
    "alternatives": [["cc|a"], ["cab|bb"], ["c|b", "a|b"]],
}
ROWS = [row for rows in PHRASES.values() for row in rows]
MANY = SENTENCES * len(PHRASES)


def test_a_full_beam_finds_the_best_of_all_that_contain_the_phrases() -> None:
    limit, letters = 5, [1, 3, 6]
    model = table(7, seed=2, spread=1.0)
    ended = [[*b, EOS] for n in range(limit) for b in itertools.product(letters, repeat=n)]
    texts = ended + [[*b] for b in itertools.product(letters, repeat=limit)]
    ours = found(
        model,
        MANY,
        [limit] * len(MANY),
        len(texts),
        required(ROWS, LETTERS),
        penalty=LengthPenalty(0.6),
        banned=(*BANNED, UNK),
    )
    for hypotheses, sentence, row in zip(ours, MANY, ROWS, strict=True):
        expected = [
            (model.total(sentence, tokens) / penalty(len(tokens)), tokens)
            for tokens in texts
            if all(contains(tokens, p, LETTERS) for p in row)
            # Tokens that phrases share are not counted on where only they would make them fit.
            and all(needed(tokens[:t], row) <= limit - t for t in range(limit))
        ]
        assert len(expected) > 3
        assert_same(hypotheses, sorted(expected, reverse=True))


def by_loop(model: Table, sentence: int, limit: int, beams: int, phrases: Sequence[str]) -> Found:
    """The search as its docstrings tell it, with lists; for a vocabulary of letters."""
    live: Found = [(0.0, [])]
    finished: Found = []
    for length in range(1, limit + 1):
        banks: dict[int, Found] = {}
        strays: Found = []
        for total, tokens in live:
            log_probs = model.log_probs(sentence, tokens)
            lacking = [p for p in phrases if not contains(tokens, p, LETTERS)]
            would_end = bool(lacking) and log_probs.argmax() == EOS
            if lacking:
                log_probs[EOS] = -np.inf
            considered = {int(i) for i in np.argsort(-log_probs)[: beams + 1]}
            text = "".join(LETTERS[i] for i in tokens)
            for p in "|".join(lacking).split("|") if lacking else []:
                begun = max(n for n in range(len(p)) if text.endswith(p[:n]))
                considered.add(LETTERS.index(p[begun]))
            for token in considered:
                needs = needed([*tokens, token], phrases)
                if log_probs[token] > -np.inf and needs <= limit - length:
                    one = (total + log_probs[token], [*tokens, token])
                    is_stray = would_end and needs >= needed(tokens, phrases)
                    (strays if is_stray else banks.setdefault(needs, [])).append(one)

        def worth(one: tuple[float, list[int]]) -> float:
            return one[0] - 3 * needed(one[1], phrases)

        rounds = itertools.zip_longest(*(sorted(bank, reverse=True) for bank in banks.values()))
        tiers = [[one for one in each if one] for each in (*rounds, strays)]
        ordered = [one for tier in tiers for one in sorted(tier, key=worth, reverse=True)]
        candidates = ordered[: 2 * beams]
        for total, tokens in candidates[:beams]:
            if tokens[-1] == EOS or length == limit:
                finished.append((total / penalty(length), tokens))
        finished = sorted(finished, reverse=True)[:beams]
        live = [one for one in candidates if one[1][-1] != EOS][:beams]
        best = max((total for total, _ in live), default=-np.inf)
        if len(finished) == beams and best / penalty(limit) <= finished[-1][0]:
            break
    return finished


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_a_beam_is_the_plain_loop(beams: int) -> None:
    """The limit of some sentences leaves room for little else."""
    model, limits = table(9, seed=beams, eos=0.5), [5, 6, 9] * len(PHRASES)
    must = required(ROWS, LETTERS)
    ours = found(model, MANY, limits, beams, must, penalty=LengthPenalty(0.6))
    for hypotheses, sentence, limit, row in zip(ours, MANY, limits, ROWS, strict=True):
        assert_same(hypotheses, by_loop(model, sentence, limit, beams, row))


def test_without_phrases_a_sentence_has_the_hypotheses_of_the_free_search() -> None:
    model, limits = table(9, seed=3, eos=0.5), [7, 4, 9]
    must = required([[], ["dab"], []], LETTERS)
    free, ours = (found(model, SENTENCES, limits, 4, one) for one in (None, must))
    assert [tokens for _, tokens in free[1]] != [tokens for _, tokens in ours[1]]
    for sentence in (0, 2):
        assert free[sentence] == ours[sentence]  # to the bit


SPACED = [["b"], ["a b", "."], ["aba"], ["ab", "a"], ["a.b", "b"], [".", "b a"], ["ba|ab", "b"]]


@pytest.mark.parametrize(("beams", "reserved"), [(1, 0), (4, 1)])
def test_texts_contain_phrases_as_words_in_whatever_tokens(beams: int, reserved: int) -> None:
    """Also where rules forbid most tokens, and where there is hardly room."""
    model, phrases = table(len(WORDS), seed=4, spread=3.0), SPACED * 3
    must = required(phrases, WORDS, reserved)
    most = np.array(must.automata.left)[:, :, :2].max(-1).sum(-1)
    limits = (most + reserved + np.repeat([0, 1, 5], len(SPACED))).tolist()
    rule = from_options(SearchOptions(no_repeat_ngram=2, top_k=2), SPECIALS)
    ours = found(model, [7 * i for i in range(len(phrases))], limits, beams, must, processors=rule)
    for hypotheses, row, limit in zip(ours, phrases, limits, strict=True):
        assert 1 <= len(hypotheses) <= beams
        for _, tokens in hypotheses:
            assert len(tokens) <= limit
            kept = tokens[: limit - reserved]
            assert all(contains(kept, phrase, WORDS) for phrase in row), (tokens, row)


def test_an_automaton_reads_a_text_as_a_pattern_finds_it() -> None:
    """In all texts of few tokens; a phrase ends where no letter follows."""
    of = surfaces(WORDS)
    tokens = [i for i, text in enumerate(WORDS) if text]
    for phrase in ("b", "ab", "a b", "ba", ".", "a.", "b|ab"):
        one = automaton(tuple(spelling(p, WORDS) for p in phrase.split("|")), of)
        for text in itertools.product(tokens, repeat=4):
            whole = [t for t in range(1, 5) if contains(text[:t], phrase, WORDS)]
            assert one.reads(text, of) == bool(whole), (phrase, text)
