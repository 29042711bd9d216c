"""The experiments: their settings are settings, and what they make of a corpus is right."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest

from encdec.config import RunConfig, TransformerConfig
from encdec.data.sources import Pairs
from encdec.runs.metrics_log import append_metrics
from encdec.types import InputError
from tests.small_run import small_run


def script(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.{name}")


@pytest.mark.parametrize("model", ["seq2seq", "attention", "transformer"])
def test_every_recipe_is_of_its_model(model: str) -> None:
    here = Path("corpus")
    multi30k, long, scan = map(script, ("multi30k", "long_sentences", "scan"))
    found: list[RunConfig] = [
        multi30k.config(multi30k.Options(here, model)),
        long.config(long.Options(here, model), here, here),
        scan.config(scan.Options(here, model=model), here),
    ]
    assert [config.model_name for config in found] == [model] * 3


def test_g2p_reads_characters_and_writes_phones() -> None:
    g2p = script("g2p")
    for size in g2p.SIZES:
        data = g2p.config(g2p.Options(Path("corpus"), "vie"), size).data
        assert (data.vocabulary, data.target_vocabulary) == ("chars", "words")
        assert data.tsv[0].endswith("corpus/vie_train.tsv")
        assert data.valid_tsv[0].endswith("corpus/vie_dev.tsv")


def test_joined_sentences_are_all_sentences_in_runs() -> None:
    """Each round uses each sentence once; both sides are joined alike."""
    long = script("long_sentences")
    pairs = Pairs([f"s{i}" for i in range(300)], [f"t{i}" for i in range(300)])
    made = long.joined(pairs, 2, seed=3)
    for side, letter in zip(made, "st", strict=True):
        words = " ".join(side).split()
        for part in (words[:300], words[300:]):
            assert sorted(part) == sorted(f"{letter}{i}" for i in range(300))
    assert [s.replace("s", "t") for s in made.src] == made.tgt
    sizes = {len(s.split()) for s in made.src}
    assert sizes <= set(range(1, long.MOST_JOINED + 1))
    assert {1, long.MOST_JOINED} <= sizes


def test_scan_lines_are_taken_apart(tmp_path: Path) -> None:
    scan = script("scan")
    lines = tmp_path / "lines"
    lines.write_text("IN: jump twice OUT: I_JUMP I_JUMP\n")
    assert scan.read_scan(lines) == Pairs(["jump twice"], ["I_JUMP I_JUMP"])
    lines.write_text("IN: jump OUT: I_JUMP\njump\n")
    with pytest.raises(InputError, match="lines, line 2: not of the form"):
        scan.read_scan(lines)


def test_a_step_of_any_length_holds_as_many_tokens() -> None:
    parallelism = script("parallelism")
    for length in (8, 64):
        batch = parallelism.random_batch(parallelism.Options(tokens=128), length)
        assert batch.src.shape == (128 // length, length)
        assert batch.tgt.shape == (128 // length, length + 1)


def run_with_scores(path: Path) -> list[dict[str, Any]]:
    """A run with measurements as training and scoring leave them; its last test of each search."""
    small_run(path)
    start = {"kind": "start", "device": "2 x abacus", "jax": "1.2", "date": "2001-02-03T04:05"}
    test = {"step": 70, "kind": "test", "name": "easy", "beam": 5}
    rows = [
        {"step": 0, **start},
        {"step": 50, "kind": "train", "loss": 1.0, "seconds": 90.0},
        {"step": 70, "kind": "train", "loss": 0.5, "seconds": 60.0},
        {**test, "length_penalty": 1, "bleu": 9.0},
        {**test, "length_penalty": 0.6, "bleu": 10.0},
        {**test, "length_penalty": 1, "bleu": 21.987},
    ]
    for row in rows:
        append_metrics(path / "metrics.jsonl", row)
    return rows[-2:]


def test_the_table_is_what_the_runs_measured(tmp_path: Path) -> None:
    table, run = script("table"), tmp_path / "multi30k-small"
    last = run_with_scores(run)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    options = table.Options((run,), tmp_path / "results.json", page)
    table.main(options)
    kept = json.loads(options.results.read_text())["multi30k-small"]
    assert sorted(kept["tests"], key=lambda test: test["bleu"]) == last
    assert (kept["minutes"], kept["steps"], kept["device"]) == (2.5, 70, "2 x abacus")
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    row, other = (line for line in lines if "multi30k-small" in line)
    for cell in ("easy", "5, 1", "BLEU 21.99", "2 x abacus", "2001-02-03"):
        assert f"| {cell} |" in row
    assert "| 5, 0.6 | BLEU 10.00 |" in other
    before = page.read_text()
    table.main(table.Options((), options.results, page))
    assert page.read_text() == before


def test_only_tested_runs_of_an_experiment_have_a_row(tmp_path: Path) -> None:
    table = script("table")
    small_run(tmp_path / "g2p-fre")
    with pytest.raises(InputError, match="g2p-fre has no test scores"):
        table.record(tmp_path / "g2p-fre")
    small_run(tmp_path / "mine")
    with pytest.raises(InputError, match="mine is of no experiment"):
        table.record(tmp_path / "mine")


def test_the_page_is_up_to_date() -> None:
    table = script("table")
    results = table.Options().results
    kept = json.loads(results.read_text()) if results.exists() else {}
    page = table.Options().page.read_text(encoding="utf-8")
    assert table.written(page, kept) == page


def test_scaling_measures_every_layout(monkeypatch, capsys) -> None:
    scaling = script("scaling")
    assert scaling.all_layouts(4) == ["1x1", "4x1", "4x1z", "2x2", "2x2z", "1x4"]
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 4)
    monkeypatch.setattr(
        scaling, "transformer", lambda options: TransformerConfig(1, 16, 24, 4, dropout=0.0)
    )
    sizes = {"sentences": 4, "source_length": 5, "target_length": 6, "vocabulary": 2101, "steps": 2}
    with jax.numpy_dtype_promotion("standard"):  # Optax promotes
        scaling.main(scaling.Options(layouts=("1x1", "2x2z"), **sizes))
    _, _, _, one, four = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in one.split("|")][6:10] == ["0", "0", "0", "0e+00"]
    cells = [cell.strip() for cell in four.split("|")]
    assert cells[1] == "2x2z"
    assert 0 < float(cells[5]) < float(one.split("|")[5])  # a device holds less
    assert float(cells[9]) < 1e-5
    assert min(int(cell) for cell in cells[6:9]) > 1
