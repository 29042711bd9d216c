"""Damaged files of a run: what they hold is used, skipped, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from encdec import config as configs
from encdec.config import AttentionConfig, ModelConfig, RunConfig, Seq2SeqConfig, TransformerConfig
from encdec.runs import run as runs
from encdec.runs.metrics_log import MetricRows, MetricsLog, describe_bad_lines, metric_rows
from encdec.runs.run import Run
from tests.fuzzing import DEEP, NUMBERS, changed, json_file, refusal
from tests.small_run import small_run

FAMILIES = [TransformerConfig(), AttentionConfig(), Seq2SeqConfig()]
ROWS = [
    {"kind": "start", "step": 0, "device": "cpu", "date": "2026-01-01"},
    {"kind": "train", "step": 5, "loss": 1.5, "seconds": 2},
    {"kind": "valid", "step": 5, "loss": None, "bleu": 3.0},
    {"kind": "test", "step": 5, "name": "a", "bleu": 3.0, "by_length": [{"first": 0}]},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose files have no checksums, as those of earlier versions, so that each is read."""
    made = small_run(tmp_path_factory.mktemp("runs") / "dates")
    path = made.path / "config.json"
    tree = json.loads(path.read_text())
    del tree["checksums"]
    path.write_text(json.dumps(tree))
    return made


def check(made: Run, name: str, content: bytes) -> Run | None:
    """Loads the run with this content of a file; None if it is refused in one line."""
    path = made.path / name
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        said = refusal(lambda: runs.load(made.path))
        loaded = runs.load(made.path) if said is None else None
    finally:
        path.write_bytes(before)
    assert said is None or "\n" not in said
    return loaded


@given(st.data())
@example(None)
def test_settings_are_used_or_refused(made: Run, data: Any) -> None:
    tree = json.loads((made.path / "config.json").read_text())
    loaded = check(made, "config.json", DEEP if data is None else data.draw(json_file(tree)))
    if loaded is not None:
        assert loaded.corpus is None or isinstance(loaded.corpus, str)
        assert type(loaded.extra_length) is int
        assert 0 <= loaded.extra_length < 2**31


@pytest.mark.parametrize("model", FAMILIES, ids=lambda model: type(model).__name__)
@given(st.data())
def test_any_values_of_settings_make_settings_or_an_error(model: ModelConfig, data: Any) -> None:
    """And settings that are made are written and read without a change."""
    tree = json.loads(json.dumps(configs.to_json(RunConfig(model=model))))
    part = data.draw(st.sampled_from([*tree]))
    name = data.draw(st.sampled_from([*tree[part]])) if isinstance(tree[part], dict) else ""
    if name:
        tree[part] = {**tree[part], name: data.draw(NUMBERS)}
    else:
        tree = data.draw(changed(tree))
    if not isinstance(tree, dict) or refusal(lambda: configs.from_json(tree)) is not None:
        return
    made = configs.from_json(tree)
    assert configs.from_json(json.loads(json.dumps(configs.to_json(made)))) == made


@given(st.data())
@example(None)
def test_held_out_pairs_are_pairs_or_refused(made: Run, data: Any) -> None:
    lines = [b'["a", "b"]', DEEP if data is None else data.draw(json_file(["a", "b"]))]
    loaded = check(made, "heldout.jsonl", b"\n".join(lines))
    if loaded is not None:
        assert all(isinstance(text, str) for side in loaded.held_out for text in side)


@given(st.data())
@example(None)
def test_rows_of_metrics_are_rows_or_skipped(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [DEEP] if data is None else [data.draw(json_file(row)) for row in ROWS]
    path.write_bytes(b"\n".join([*(json.dumps(row).encode() for row in ROWS), *lines, b""]))
    rows = metric_rows(path)
    assert all(kept[:1] == [row] for kept, row in zip(rows, ROWS, strict=True))
    assert rows.minutes >= 0 or len(rows.train) > 1
    for kind, kept in zip(MetricRows._fields, rows, strict=True):
        for row in kept:
            assert type(row["step"]) is int
            float(row["step"])
            values = [row[name] for name in row if kind in ("train", "valid") and name != "kind"]
            assert all(value is None or float(value) == value for value in values)
            assert row.get("name") is None or isinstance(row["name"], str)
    said = describe_bad_lines(path)
    assert said is None or (said.startswith(str(path)) and "\n" not in said)
    with MetricsLog(tmp_path, 10):
        pass
    assert describe_bad_lines(path) is None
