"""`encdec compare` on runs and files of translations."""

import json
from pathlib import Path

import pytest

from tests.commands import refused

GREEDY = ["--beam", 1]


def test_compare_files_of_translations(tmp_path: Path, encdec) -> None:
    references = [f"the {i} cats sat on mat {i % 7}" for i in range(40)]
    for name, wrong in (("good", 9), ("bad", 2)):
        texts = [f"x{t[1:]}" if i % wrong == 0 else t for i, t in enumerate(references)]
        (tmp_path / name).write_text("".join(f"{text}\n" for text in texts))
    (tmp_path / "ref").write_text("".join(f"{text}\n" for text in references))
    command = ["compare", tmp_path / "bad", tmp_path / "good", "--target", tmp_path / "ref"]
    for metric in ("bleu", "ter", "exact_match"):
        found = json.loads(encdec(*command, "--metric", metric, "--samples", 100, "--json").out)
        assert (found["name"], found["sentences"], found["better"]) == ("ref", 40, "b")
        assert found["difference"] == pytest.approx(found["value_b"] - found["value_a"])
        assert "seed:12345" in found["signature"]
    others = [*command, "--extra-references", tmp_path / "bad", "--metric", "exact_match"]
    found = json.loads(encdec(*others, "--samples", 9, "--json").out)
    assert (found["value_a"], found["value_b"]) == (1, 38 / 40)  # `bad` is a reference now
    text = encdec(*command).out
    assert f"{tmp_path / 'good'} is better than {tmp_path / 'bad'}: p is below 0.05." in text


def test_files_may_be_pipes(encdec, piped) -> None:
    texts = (b"a b c d\nb\n", b"a b c d\nc\n", b"a b c d\nc\n")
    a, b, target = map(piped, texts)
    command = ["compare", a, b, "--target", target, "--metric", "exact_match", "--samples", 9]
    found = json.loads(encdec(*command, "--json").out)
    assert (found["value_a"], found["value_b"]) == (0.5, 1)


def test_compare_runs(folder: Path, tmp_path: Path, encdec) -> None:
    command = ["compare", folder / "a", folder / "b", *GREEDY, "--samples", 20, "--json"]
    held_out = json.loads(encdec(*command, "--metric", "ter").out)
    assert (held_out["name"], held_out["sentences"]) == ("held-out", 7)
    files = ["--source", folder / "src", "--target", folder / "tgt"]
    for side, run in (("value_a", "a"), ("value_b", "b")):
        alone = json.loads(encdec("evaluate", folder / run, *GREEDY, "--json").out)
        assert held_out[side] == pytest.approx(alone["ter"])
    assert encdec("evaluate", folder / "b", *files, *GREEDY, "--output", tmp_path / "b").code == 0
    mixed = ["compare", folder / "b", tmp_path / "b", *files, *GREEDY, "--metric", "chrf"]
    found = json.loads(encdec(*mixed, "--json").out)
    assert (found["difference"], found["p_value"], found["better"]) == (0, 1, None)
    assert "No significant difference" in encdec(*mixed).out


def test_compare_refuses(folder: Path, tmp_path: Path, encdec) -> None:
    a, b, src = folder / "a", folder / "b", folder / "src"
    (tmp_path / "short").write_text("one\n")
    cases: list[tuple[list[object], list[str]]] = [
        ([a, folder / "other"], ["different held-out sentences", "--source and --target"]),
        ([src, src], ["need references", "--target"]),
        ([src, tmp_path / "short", "--target", folder / "tgt"], ["short has 1 lines", "4"]),
        ([a, src], ["src has 4 lines", "7 references", "held-out"]),
        ([a, b, "--target", folder / "tgt"], ["as many source files as target files"]),
        ([a, b, "--samples", 0], ["samples = 0"]),
        ([a, b, "--metric", "blue"], ["metric 'blue' is unknown; did you mean bleu?"]),
        ([a, b, "--metric", "loss"], ["metric 'loss'", "not computed from texts"]),
        ([a, tmp_path / "nowhere"], ["nowhere"]),
        ([a], ["RUN_B"]),
    ]
    for arguments, parts in cases:
        refused(encdec("compare", *arguments), *parts)
