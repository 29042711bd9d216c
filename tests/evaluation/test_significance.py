"""Paired bootstrap against a direct resampling, and verdicts that must hold."""

import numpy as np
import pytest

from encdec.evaluation.compute import compute_metrics
from encdec.evaluation.metrics import text_metrics
from encdec.evaluation.options import MetricOptions
from encdec.evaluation.significance import compare
from encdec.evaluation.tables import comparison_text
from encdec.types import InputError

REFERENCES = [f"the {i} cats sat on mat {i % 7} again" for i in range(60)]


def spoiled(every: int) -> list[str]:
    """Translations of which each so-manieth is wrong."""
    return [
        text.replace("cats", "dogs") if i % every == 0 else text
        for i, text in enumerate(REFERENCES)
    ]


def test_exact_match_is_resampled() -> None:
    """sacreBLEU's test by hand: differences of the samples, centred, against the real one."""
    a, b = spoiled(3), spoiled(4)
    found = compare(a, b, [REFERENCES], "exact_match", samples=500)
    right = np.array([[h == r for h, r in zip(s, REFERENCES, strict=True)] for s in (a, b)], float)
    drawn = np.random.default_rng(12345).choice(60, size=(500, 60), replace=True)
    share_a, share_b = right[:, drawn].mean(-1)
    differences = np.abs(share_a - share_b)
    real = abs(right[0].mean() - right[1].mean())
    larger = int((differences - differences.mean() > real).sum())
    assert (found.value_a, found.value_b) == pytest.approx(right.mean(1))
    assert found.difference == pytest.approx(right[1].mean() - right[0].mean())
    assert found.p_value == pytest.approx((larger + 1) / 501)
    low, high = np.sort(share_b)[[500 // 40, 500 - 500 // 40 - 1]]
    assert found.interval_b == pytest.approx((high - low) / 2, rel=1e-4)
    assert "seed:12345" in found.signature
    assert "bs:500" in found.signature


@pytest.mark.parametrize("name", text_metrics())
def test_values_are_those_of_compute_metrics_and_the_better_wins(name: str) -> None:
    bad, good = spoiled(2), spoiled(10)
    options = MetricOptions("char", lowercase=True)
    found = compare(bad, good, [REFERENCES], name, options, samples=100)
    for one, hypotheses in ((found.value_a, bad), (found.value_b, good)):
        expected = compute_metrics(hypotheses, [REFERENCES], options, [name])[name]
        assert one == pytest.approx(expected)
    assert found.better == "b"
    assert found.p_value < 0.05
    back = compare(good, bad, [REFERENCES], name, options, samples=100)
    assert back.better == "a"
    assert back.difference == -found.difference
    assert "good is better than bad: p is below 0.05." in comparison_text(found, "bad", "good")


def test_a_system_is_no_better_than_itself() -> None:
    found = compare(spoiled(3), spoiled(3), [REFERENCES], samples=20)
    assert (found.p_value, found.difference, found.better) == (1, 0, None)
    assert "No significant difference" in comparison_text(found, "x", "y")


def test_a_small_difference_is_not_significant() -> None:
    other = [*REFERENCES[:-1], "the last is another"]
    assert compare(REFERENCES, other, [REFERENCES], "chrf", samples=200).better is None


def test_several_references() -> None:
    other = [text.replace("again", "once more") for text in REFERENCES]
    a, b = spoiled(3), other
    assert compare(a, b, [REFERENCES], samples=50).better == "a"
    both = compare(a, b, [REFERENCES, other], "exact_match", samples=50)
    assert (both.value_b, both.better) == (1, "b")


def test_the_same_seed_each_time() -> None:
    one, same = (compare(spoiled(3), spoiled(4), [REFERENCES], samples=50) for _ in range(2))
    assert one == same


def test_one_empty_sentence() -> None:
    assert compare([""], ["a"], [["a"]], "ter", samples=3).value_a == 100


def test_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="samples = 0"):
        compare(["a"], ["a"], [["a"]], samples=0)
    with pytest.raises(InputError, match=r"2 translations .* 1 references"):
        compare(["a"], ["a", "b"], [["a"]])
    with pytest.raises(InputError, match="metric 'blue' is unknown; did you mean bleu"):
        compare(["a"], ["a"], [["a"]], "blue")


@pytest.mark.parametrize("seed", ["abc", "-1", "", "1.5"])
def test_a_seed_that_cannot_be_read_is_named(seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", seed)
    with pytest.raises(InputError, match="SACREBLEU_SEED"):
        compare(["a"], ["b"], [["a"]], "exact_match", samples=2)
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    found = compare(["a"], ["b"], [["a"]], "exact_match", samples=2)
    assert "seed:7" in found.signature
