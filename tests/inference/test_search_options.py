"""Search options from the user to the search, by Python and by the command line."""

import math
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import pytest

import encdec
from encdec.config.search import SearchOptions
from encdec.inference.translator import Translator
from encdec.search.interface import Processor
from encdec.types import InputError
from tests.commands import refused
from tests.small_run import small_run

TEXTS = ["3. Mai 1979", "", "12/11/2026"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "run", ending=0).path


@pytest.fixture(scope="module")
def translator(path: Path) -> Translator:
    return encdec.load(path)


@pytest.mark.slow
def test_the_command_line_reaches_the_search(path: Path, translator: Translator, encdec) -> None:
    """Each option alone changes the translation as it should; an ensemble takes them too."""
    options = ["--beam", 2, "--max-ratio", 0, "--max-extra", 8]
    stdin = "".join(f"{text}\n" for text in TEXTS).encode()

    def translate(*more: object, runs: int = 1) -> list[str]:
        outcome = encdec("translate", *[path] * runs, *options, *more, stdin=stdin)
        assert outcome.code == 0
        assert all("translations were cut" in line for line in outcome.err.splitlines())
        return outcome.out.splitlines()

    free = translate()
    assert free == [
        one.text for one in translator.translate(TEXTS, SearchOptions(2, max_ratio=0, max_extra=8))
    ]
    first, _, third = free
    assert len(first) > 0 < len(third)
    assert all(first[0] not in line for line in translate("--ban", first[0]))
    longer = translate("--min-length", 8)
    assert longer[1] == ""
    assert len(longer[0]) >= 7 <= len(longer[2])  # the end token counts, where there is one
    assert longer != free
    for line in translate("--no-repeat-ngram", 1, "--ban-unknown"):
        assert len(set(line)) == len(line)
        assert "⁇" not in line
    forced = translate("--prefix", "19", runs=2)
    assert forced[0].startswith("19")
    assert forced[1] == ""
    assert forced[2].startswith("19")
    drawn = translate("--sample", "--top-k", 3, "--top-p", 0.9, "--temperature", 2, "--seed", 3)
    assert drawn != free
    three = translate("--sample", "--nbest", 3, "--scores")
    assert three[3:6] == ["0.0000\t"] * 3
    assert translate("--repetition-penalty", 0.2) != free


class NoStutter(Processor):
    """No token comes twice in a row."""

    def __call__(self, state, log_probs, history):
        is_last = jnp.arange(log_probs.shape[-1]) == history.last[..., None]
        return state, jnp.where(is_last, -jnp.inf, log_probs)


class NotANumber(Processor):
    """It divides zero by zero."""

    def __call__(self, state, log_probs, history):
        return state, log_probs * jnp.nan


class Forgetful(Processor):
    """Its state has another type after a step than before."""

    def init(self, history):
        return jnp.zeros(history.tokens.shape[:2], jnp.int32)

    def __call__(self, state, log_probs, history):
        return state.astype(jnp.float32), log_probs


def test_prefixes_of_each_text_and_a_rule_of_ones_own(translator: Translator) -> None:
    prefixes = ["19", "", ""]
    options = SearchOptions(beam=2)
    free = translator.translate(TEXTS, options)
    some = translator.translate(TEXTS, options, prefixes=prefixes)
    assert some[0].text.startswith("19")
    assert [one.tgt_ids for one in some[1:]] == [one.tgt_ids for one in free[1:]]
    same = translator.translate(TEXTS, options, prefixes=[one.text[:3] for one in free])
    assert [one.log_prob for one in same] >= [one.log_prob - 1e-3 for one in free]
    ruled = translator.translate(TEXTS, options, processors=[NoStutter()])
    for one in [*ruled, translator(TEXTS[0], options, processors=[NoStutter()])]:
        assert all(a != b for a, b in zip(one.tgt_ids, one.tgt_ids[1:], strict=False))


def test_each_line_has_draws_of_its_own_wherever_it_stands(translator: Translator) -> None:
    """Not those of another line, and the same in whatever window, batch and number of draws."""
    options = SearchOptions(sample=True, seed=2**40, max_ratio=0, max_extra=8)
    texts = ["3. Mai 1979"] * 5 + ["", "12/11/2026"] + ["3. Mai 1979"] * 4
    drawn = [one.text for one in translator.translate(texts, options)]
    assert len({*drawn[:5], *drawn[7:]}) == 9
    later = translator.translate(texts[3:], options, example_ids=range(3, 11))
    assert [one.text for one in later] == drawn[3:]
    backwards = translator.nbest(
        texts[::-1], 3, options, example_ids=range(10, -1, -1), max_batch_tokens=15
    )
    assert [one[0].text for one in backwards[::-1]] == drawn
    assert len(backwards[0]) == 3
    with pytest.raises(InputError, match="11 texts, but 2 example_ids"):
        translator.translate(texts, options, example_ids=[1, 2])


@pytest.mark.parametrize("beam", [1, 3])
def test_phrases_and_bans_of_each_text(translator: Translator, beam: int) -> None:
    """They compose with a prefix, another ban, a rule and a forced end."""
    options = SearchOptions(
        beam=beam, max_ratio=0, max_extra=12, ban=("9",), prefix="2", force_end=True, min_length=3
    )
    free = translator.translate(TEXTS, options)
    banned = free[0].text[1]
    phrases: list[list] = [["04-1", ("0-0", "77"), "04-1"], ["1"], []]
    some = translator.nbest(TEXTS, beam, options, phrases=phrases, bans=[[], [], [banned]])
    for one in some[0]:
        assert "04-1" in one.text
        assert "0-0" in one.text or "77" in one.text
        assert one.text.startswith("2")
        assert "9" not in one.text
        assert one.tgt_tokens[-1] == "</s>"
    assert [one.text for one in some[1]] == [""]
    assert all(banned not in one.text[1:] for one in some[2])
    same = translator.translate(TEXTS, options, phrases=[[], [], ["1"]])
    assert (same[0].tgt_ids, same[0].score) == (free[0].tgt_ids, pytest.approx(free[0].score))
    assert "1" in same[2].text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"phrases": [["1" * 99], [], []]}, "text 0: .* may need 99 tokens, but there is room"),
        ({"prefixes": ["", "", "1" * 99]}, "text 2: prefix = '1+' has 99 tokens"),
        ({"prefixes": ["", "", "ω"]}, "text 2: prefix = 'ω' has a token"),
        ({"options": SearchOptions(prefix="1" * 99)}, "^prefix = '1+' has 99 tokens"),
        ({"phrases": [["ω"], [], []]}, "phrases = 'ω' has a token that the target vocabulary"),
        ({"phrases": [[""], [], []]}, "phrases = '' has no tokens"),
        ({"phrases": [[()], [], []]}, "without a text"),
        ({"phrases": ["12", [], []]}, r"phrases has '12' for a text: give a list"),
        ({"phrases": [["12"], []]}, "3 texts: give as many phrases, one for each"),
        ({"bans": [[], [], ["ω"]]}, "text 2: ban = 'ω' has a token"),
        ({"phrases": [["12"], [], []], "bans": [["2"], [], []]}, "'12', which cannot be written"),
        ({"phrases": [[("12", "52")], [], []], "bans": [["2"], [], []]}, "which cannot be written"),
        ({"phrases": [["12"], [], []], "options": SearchOptions(sample=True)}, "with sample"),
        ({"options": SearchOptions(beam=10**9)}, r"beam = 10{9} needs about .* would fit"),
    ],
)
def test_what_cannot_be_is_named(translator: Translator, given, says: str) -> None:
    with pytest.raises(InputError, match=says):
        translator.translate(TEXTS, **given)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--beam", "1000000000"], ["beam = 1000000000 needs about", "would fit"]),
        (["--prefix", "1" * 99], ["has 99 tokens", "at most", "max_extra"]),
        (["--prefix", "1979", "--ban", "5", "97"], ["'1979' contains what ban forbids"]),
        (["--prefix", "ω"], ["prefix = 'ω'", "does not know"]),
        (["--ban", "ω"], ["ban = 'ω'", "does not know"]),
        (["--ban", ""], ["ban = '' has no tokens"]),
        (["--min-length", "500"], ["min_length = 500 is more than"]),
        (["--repetition-penalty", "nan"], ["repetition_penalty = nan", "above 0 and finite"]),
        (["--temperature", "inf"], ["temperature = inf", "above 0 and finite"]),
        (["--temperature", "1e-40"], ["temperature = 1e-40", "above 0 and finite in float32"]),
        (["--length-penalty", "nan"], ["length_penalty = nan"]),
        (["--length-penalty", "1e39"], ["length_penalty = 1e+39"]),
        (["--epsilon-cutoff", "nan"], ["epsilon_cutoff = nan", "below 1"]),
        (["--top-p", "0"], ["top_p = 0.0", "above 0"]),
        (["--no-repeat-ngram", "-1"], ["no_repeat_ngram = -1", "at least 0"]),
        (["--seed", "-1"], ["seed = -1"]),
        (["--seed", str(2**64)], ["seed = 18446744073709551616", "below 2^64"]),
        (["--ensemble-weights", "0.5", "0.5"], ["2 weights for 1 runs"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else None,
)
def test_what_cannot_be_used_is_refused(path: Path, encdec, options, parts) -> None:
    refused(encdec("translate", path, *options, stdin=b"3. Mai\n"), *parts)


def test_misuse_in_python_is_named(translator: Translator) -> None:
    with pytest.raises(InputError, match="3 texts: give as many prefixes, one for each"):
        translator.translate(TEXTS, prefixes=["19"])
    with pytest.raises(InputError, match="ban = 'ab' is one text"):
        SearchOptions(ban="ab")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no_repeat_ngram"):
        SearchOptions(no_repeat_ngram=2**31)
    assert SearchOptions(length_penalty=0).length_penalty < math.inf
    for given, says in (
        ([NoStutter], r"the class NoStutter: give an instance of it, NoStutter\(\)"),
        (NoStutter(), r"one processor: give a list of them"),
        ([len], r"<built-in function len>, which is no encdec.Processor"),
    ):
        with pytest.raises(InputError, match=says):
            translator("3 May", processors=given)
    for options in (SearchOptions(beam=1), SearchOptions(beam=2), SearchOptions(sample=True)):
        with pytest.raises(InputError, match=r"text 1: no translation has a finite score"):
            translator.translate(["", *TEXTS], options, processors=[NotANumber()])
        with pytest.raises(InputError, match=r"Forgetful got the state int32\[.*float32\["):
            translator.translate(TEXTS, options, processors=[Forgetful()])
    with pytest.raises(InputError, match=r"prefix = \['19'\] is not a text"):
        SearchOptions(prefix=["19"])


def test_a_greedy_line_does_not_depend_on_phrases_of_its_neighbours(translator) -> None:
    texts = [f"{day}. {month} 19{year}" for day in (3, 14) for month in "ab" for year in (12, 70)]
    options = SearchOptions(beam=1, length_penalty=1, length_penalty_kind="mean", max_extra=20)
    expected = translator.translate(texts, options)
    phrases = [[]] * len(texts) + [["1"]]
    *others, last = translator.translate([*texts, "7"], options, phrases=phrases)
    assert [one.tgt_tokens for one in others] == [one.tgt_tokens for one in expected]
    assert "1" in last.text


@pytest.mark.parametrize("beam", [1, 2])
def test_a_prefix_leaves_room_for_a_forced_end(translator, beam: int) -> None:
    options = SearchOptions(beam=beam, max_ratio=0, max_extra=4, force_end=True)
    assert translator("7", replace(options, prefix="123")).text == "123"
    with pytest.raises(InputError, match=r"prefix = '1234' has 4 tokens, but .* at most 3"):
        translator("7", replace(options, prefix="1234"))
