import json
from dataclasses import replace
from pathlib import Path

import pytest

from encdec.cli.info import info
from encdec.config.presets import preset
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.parameters import best_params
from tests.commands import refused
from tests.small_run import small_run


def test_what_a_run_is_and_how_it_scored(encdec, measured: Path) -> None:
    info = json.loads(encdec("info", measured, "--json").out)
    params, _ = best_params(runs.load(measured))
    assert info["parameters"] == sum(leaf.size for leaf in checkpoints.flat(params).values())
    assert info["model"] == "transformer"
    assert info["tokens"] == {"source": "chars", "target": "chars", "joint": False}
    assert "dates" in info["corpus"]
    assert info["steps"] == {"done": 1, "of": 1}  # it has only the best parameters, of this step
    assert info["minutes"] == 3.0
    assert info["trained on"]["device"] == "1 x abacus"
    assert info["training"] == {"step": 10, "loss": 3.0}
    assert info["validation"] == {"step": 10, "bleu": 10.0, "loss": 3.25}
    assert info["best"] == {"step": 5, "bleu": 11.0}
    assert info["tested"] == [{"name": "a", "step": 5, "beam": 5, "bleu": 12.0}]
    text = encdec("info", measured).out
    for part in (
        "transformer",
        "joint no",
        "1 x abacus",
        "training      step 10, loss 3\n",
        "step 5, bleu 11",
        "name a, step 5, beam 5, bleu 12",
    ):
        assert part in text


def test_what_a_run_was_trained_on(encdec, tmp_path: Path) -> None:
    made = small_run(tmp_path / "made")
    config = preset("tiny", "attention")
    data = replace(config.data, tsv=("/a/b.tsv",), target_language="fr", vocabulary="words")
    runs.create(replace(made, path=tmp_path / "run", config=replace(config, data=data)))
    with pytest.raises(KeyError):
        info(made)["preset"]
    facts = info(runs.load(tmp_path / "run"))
    assert (facts["preset"], facts["corpus"]) == ("tiny", "/a/b.tsv")
    assert facts["languages"] == {"from": "en", "to": "fr"}
    assert facts["tokens"]["source"] == "words"


def test_a_run_without_measurements(encdec, tmp_path: Path) -> None:
    info = json.loads(encdec("info", small_run(tmp_path / "run").path, "--json").out)
    assert not {"best", "tested", "minutes", "trained on"} & info.keys()


def test_a_folder_that_is_no_run_is_refused(encdec, tmp_path: Path) -> None:
    refused(encdec("info", tmp_path), "not a run folder")


def test_lines_that_are_no_rows_are_skipped_and_said(encdec, measured: Path) -> None:
    before = encdec("info", measured)
    with (measured / "metrics.jsonl").open("ab") as file:
        file.write(
            b'null\n{}\n\xff\n{"kind": "train", "step": "40"}\n{"kind": "valid", "step": 3}\n'
        )
    after = encdec("info", measured)
    assert (after.code, after.out) == (0, before.out)
    assert "metrics.jsonl: lines 8, 9, 10, 11 are no rows of metrics" in after.err
    drawn = encdec("plot", measured, "--out", measured.parent / "curves.svg")
    assert (drawn.code, len(drawn.err.splitlines())) == (0, 1)
    assert "lines 8, 9, 10, 11 are no rows" in drawn.err
