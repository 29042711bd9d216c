"""Metrics against sacreBLEU's own functions, plain loops and cases worked out by hand."""

import dataclasses
import random

import pytest
import sacrebleu

from encdec.config import LOWER_IS_BETTER, DataConfig, RunConfig, TrainingConfig
from encdec.evaluation.metrics import NAMES, MetricOptions, metric_options, score
from encdec.types import InputError

HYPOTHESES = ["the cat sat on a mat", "a Dog barks !", "", "one two three four five"]
REFERENCES = ["the cat sat on the mat", "a dog barks !", "nothing", "one two three four six"]
DEFAULT = MetricOptions()


def edits(a: list[str], b: list[str]) -> int:
    """Levenshtein's distance, by the table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("tokenizer", ["13a", "intl", "char", "zh", "none"])
def test_scores_are_sacrebleus(tokenizer: str, low: bool) -> None:
    found = score(HYPOTHESES, REFERENCES, MetricOptions(tokenizer, lowercase=low))
    bleu = sacrebleu.corpus_bleu(
        HYPOTHESES, [REFERENCES], tokenize=tokenizer, lowercase=low, force=True
    )
    ter = sacrebleu.metrics.TER(case_sensitive=not low).corpus_score(HYPOTHESES, [REFERENCES])
    chrf = sacrebleu.metrics.CHRF(lowercase=low).corpus_score(HYPOTHESES, [REFERENCES])
    assert found.bleu == pytest.approx(bleu.score)
    assert found.chrf == pytest.approx(chrf.score)
    assert found.ter == pytest.approx(ter.score)
    case = "case:lc" if low else "case:mixed"
    for signature, parts in (
        (found.bleu_signature, ("nrefs:1", case, f"tok:{tokenizer}", "smooth:exp", "version:")),
        (found.chrf_signature, ("nrefs:1", case, "nc:6", "nw:0", "version:")),
        (found.ter_signature, ("nrefs:1", case, "tok:tercom", "version:")),
    ):
        assert signature is not None
        assert all(part in signature for part in parts)
    assert found.exact_match == (0.25 if low else 0)
    assert found.sequence_error_rate == (75 if low else 100)


def test_symbol_errors_by_hand() -> None:
    found = score(HYPOTHESES, REFERENCES)
    assert found.token_error_rate == pytest.approx(100 * (1 + 1 + 1 + 1) / (6 + 4 + 1 + 5))
    phones = score(["b ɔ̃ ʒ u ʁ", "ʃ a"], ["b ɔ̃ ʒ u", "ʃ a t"])
    assert phones.token_error_rate == pytest.approx(100 * 2 / 7)
    assert phones.sequence_error_rate == 100


def test_symbol_errors_are_the_tables() -> None:
    draw = random.Random(1)
    sides = [
        [" ".join(draw.choices("abcde", k=draw.randrange(9))) for _ in range(50)] for _ in range(2)
    ]
    pairs = [(h.split(), r.split()) for h, r in zip(*sides, strict=True)]
    expected = 100 * sum(edits(h, r) for h, r in pairs) / sum(len(r) for _, r in pairs)
    assert score(*sides, names=["token_error_rate"]).token_error_rate == pytest.approx(expected)


def test_a_perfect_translation() -> None:
    found = score(REFERENCES, REFERENCES).summary()
    best = {"bleu": 100, "chrf": 100, "exact_match": 1, "ter": 0}
    for name in NAMES:
        assert found[name] == pytest.approx(best.get(name, 0))
        assert (found[name] == 0) == (name in LOWER_IS_BETTER)


@pytest.mark.parametrize(
    ("hypothesis", "reference", "errors"), [("", "a b", 100), ("a b", "", 100), ("", "", 0)]
)
def test_one_sentence_and_nothing(hypothesis: str, reference: str, errors: float) -> None:
    found = score([hypothesis], [reference])
    assert found.sentences == 1
    assert found.bleu == found.chrf == 0
    assert found.ter == found.token_error_rate == found.sequence_error_rate == errors
    assert found.exact_match == (hypothesis == reference)


def test_the_order_of_sentences_changes_nothing() -> None:
    order = [2, 0, 3, 1]
    shuffled = [[side[i] for i in order] for side in (HYPOTHESES, REFERENCES)]
    there, here = score(HYPOTHESES, REFERENCES).summary(), score(*shuffled).summary()
    assert here == pytest.approx(there)


def test_tokenised_text_is_joined() -> None:
    hypotheses, references = ["it &apos;s a dog , no ?"], ["it &apos;s a dog , no !"]
    joined = ["it's a dog, no?"], [["it's a dog, no!"]]
    found = score(hypotheses, references, MetricOptions(detokenize="en"))
    assert found.bleu == pytest.approx(sacrebleu.corpus_bleu(*joined).score)
    assert found.chrf == pytest.approx(sacrebleu.corpus_chrf(*joined).score)
    assert found.token_error_rate == 25  # one of four words


def test_letters_become_small_by_the_rules_of_the_language() -> None:
    """What a Turkish run writes of its own reference is that reference."""
    written, reference = "ışık istanbul", "IŞIK İstanbul"
    found = score([written], [reference], MetricOptions(lowercase=True, language="tr"))
    assert (found.bleu_signature or "").startswith("nrefs:1|case:lc")
    assert (found.exact_match, found.token_error_rate) == (1, 0)
    assert score([written], [reference], MetricOptions(lowercase=True)).token_error_rate == 100


def test_white_space_is_no_error() -> None:
    found = score(["a b", "c", "d e"], [" a  b ", "c\u3000", "de"])
    assert (found.exact_match, found.sequence_error_rate) == (2 / 3, pytest.approx(100 / 3))


def test_only_what_is_asked_for() -> None:
    found = score(HYPOTHESES, REFERENCES, names=["ter", "exact_match"])
    assert found.summary().keys() == {"sentences", "ter", "ter_signature", "exact_match"}
    assert (found.bleu, found.bleu_signature) == (None, None)


def test_a_run_says_how_it_is_scored() -> None:
    assert metric_options(RunConfig()) == MetricOptions("13a", lowercase=False)
    config = RunConfig(
        data=DataConfig(lowercase=True, target_language="az"),
        training=TrainingConfig(bleu_tokenizer="none"),
    )
    assert metric_options(config) == MetricOptions("none", lowercase=True, language="az")


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [([], [], "no sentences"), (["a"], ["a", "b"], "1 translations .* 2 references")],
)
def test_what_cannot_be_scored(hypotheses, references, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(hypotheses, references)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(InputError, match="metric 'blue' is unknown; did you mean bleu"):
        score(["a"], ["a"], names=["blue"])
    with pytest.raises(InputError, match=r"bleu_tokenizer = '13b' .* 13a, intl, char, zh, none"):
        dataclasses.replace(DEFAULT, bleu_tokenizer="13b")
    with pytest.raises(InputError, match=r"detokenize = 'German' .* code of a language"):
        MetricOptions(detokenize="German")
