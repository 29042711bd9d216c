"""Options of devices on the command line, and what is refused."""

import jax
import pytest

from encdec.runs.metrics_log import read_metrics
from tests.commands import refused

TINY = [
    *("--model", "transformer", "--layers", "1", "--width", "16", "--feed-forward", "24"),
    *("--heads", "2", "--date-sentences", "300", "--evaluate-sentences", "2", "--num-buckets", "1"),
    *("--schedule", "constant", "--evaluate-every", "1"),
]


@pytest.fixture(autouse=True)
def four_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdec.parallel.devices.device_count", lambda: 4)


@pytest.mark.slow
def test_a_run_trained_and_translated_in_any_layout(encdec, tmp_path, monkeypatch) -> None:
    """Without the command's final evaluation, which takes long."""
    monkeypatch.setattr("encdec.cli.train._show", lambda translator: None)
    run = tmp_path / "run"
    first = encdec("train", "--run", run, *TINY, "--max-steps", 1, "--layout", "2x2")
    assert first.code == 0, first
    again = encdec("train", "--resume", run, "--max-steps", 2, "--layout", "4x1", "--remat")
    assert "from step 1 of 2" in again.err
    layouts = [row["layout"] for row in read_metrics(run / "metrics.jsonl") if "layout" in row]
    assert layouts == ["2x2", "4x1"]
    translations = {
        encdec("translate", run, "--layout", layout, "--beam", 1, stdin=b"May 3, 1979\n").out
        for layout in ("1x1", "1x2")
    }
    assert len(translations) == 1


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--layout", "2by2"], ["layout = '2by2'", "DATAxMODEL", "4x1, 2x2, 1x4"]),
        (["--layout", "8x1"], ["needs 8 devices", "there are 4", "4x1"]),
        (["--layout", "1x4"], ["heads = 2 into 4 equal parts", "1 or 2 model shards would do"]),
        (
            ["--layout", "4x1", "--batch-tokens", "60"],
            ["batch_tokens", "4 data shards", "would do"],
        ),
        (["--precision", "float16"], ["float16"]),
        (["--processes", "2"], ["coordinator, processes and process go together"]),
        (
            ["--coordinator", "127.0.0.1:1", "--processes", "2", "--process", "2"],
            ["process = 2", "from 0 to 1"],
        ),
    ],
    ids=lambda value: value[0].strip("-") if value[0].startswith("--") else "",
)
def test_bad_options_are_refused_before_a_folder_is_made(encdec, tmp_path, options, parts) -> None:
    run = tmp_path / "run"
    refused(encdec("train", "--run", run, *TINY, "--max-steps", 1, *options), *parts)
    assert not run.exists()


def test_recurrent_models_have_no_heads_to_split(encdec, tmp_path) -> None:
    found = encdec("train", "--run", tmp_path / "run", "--model", "seq2seq", "--layout", "2x2")
    refused(found, "seq2seq cannot be split", "4x1 would do")
    found = encdec("train", "--run", tmp_path / "run", "--model", "seq2seq", "--remat")
    refused(found, "seq2seq has no layers for remat")


@pytest.mark.parametrize(("limit", "says"), [(2**21, "batch_tokens of about"), (1000, "smaller")])
def test_a_batch_that_does_not_fit_says_what_would(
    encdec, tmp_path, monkeypatch: pytest.MonkeyPatch, limit: int, says: str
) -> None:
    monkeypatch.setattr("encdec.parallel.devices.device_memory", lambda: limit)
    run = tmp_path / "run"
    found = encdec("train", "--run", run, *TINY, "--max-steps", 1, "--layout", "1x1")
    assert found.code == 2
    last = found.err.splitlines()[-1]
    assert "need" in last
    assert says in last
    assert not run.exists()
    assert jax.device_count() == 4
