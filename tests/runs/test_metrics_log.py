"""Rows on disk, lines on the screen."""

import json
import math
import os
import re
from pathlib import Path

import pytest

from encdec.progress import Counter, Progress
from encdec.runs.metrics_log import MetricsLog, append_metrics, describe_bad_lines, read_metrics
from encdec.types import InputError


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_one_object_a_row_and_nan_is_null(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        log.write({"kind": "train", "step": 1, "loss": 2.5})
        assert rows(tmp_path) == [{"kind": "train", "step": 1, "loss": 2.5}]  # there at once
        log.write({"kind": "valid", "step": 2, "loss": math.nan, "bleu": 3.0})
    assert rows(tmp_path)[1] == {"kind": "valid", "step": 2, "loss": None, "bleu": 3.0}
    assert list((tmp_path / "tensorboard").glob("events.out.*"))


def test_a_resumed_run_measures_again_what_comes_after_its_checkpoint(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        for step in (5, 10, 15):
            log.write({"kind": "train", "step": step, "loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # where a kill cut it off
    with MetricsLog(tmp_path, 10) as log:
        log.write({"kind": "train", "step": 15, "loss": 2.0})
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(5, 1), (10, 1), (15, 2)]


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    records = pytest.importorskip("tensorboardX.proto.event_pb2")
    with MetricsLog(tmp_path, 0) as log:
        log.write({"kind": "train", "step": 3, "loss": 0.5})
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, found, at = file.read_bytes(), [], 0
    while at < len(data):  # TFRecord: length u64, its crc u32, the event, its crc u32
        length = int.from_bytes(data[at : at + 8], "little")
        event = records.Event.FromString(data[at + 12 : at + 12 + length])
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
        at += 16 + length
    assert found == [("train/loss", 3, 0.5)]


def test_rows_from_outside_survive_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (5, 10):
        append_metrics(path, {"kind": "test", "step": step, "name": "ä", "loss": math.inf})
    with path.open("a") as file:
        file.write('{"kind": "train", "st')  # where a kill cut it off
    append_metrics(path, {"kind": "test", "step": 7})
    assert [row["step"] for row in read_metrics(path)] == [5, 10, 7]
    assert read_metrics(path)[0] == {"kind": "test", "step": 5, "name": "ä", "loss": None}
    with MetricsLog(tmp_path, 8) as log:
        log.write({"kind": "train", "step": 9})
    assert [row["step"] for row in rows(tmp_path)] == [5, 7, 9]


def test_no_rows_yet(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Counter(3, "translated") as count:
        for _ in range(3):
            count.add(1)
    assert capsys.readouterr().err == "translated 3/3, 0 s left\n"
    with Progress(100, 50) as bar:
        bar.say("hello")
        bar.update(100, loss=0.25, tokens_per_second=1234.5, learning_rate=1e-3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "hello"
    assert lines[1] == "step 100/100, 0 s left, loss 0.2500, 1,234 tokens/s, rate 1.00e-03"
    said: list[str] = []
    with Counter(3, "translated", say=said.append) as count:
        count.say("hello")
        count.add(3)
    assert said == ["hello", "translated 3/3, 0 s left"]
    assert capsys.readouterr().err == ""


def test_time_left_is_not_guessed_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encdec.progress._LINE_SECONDS", -1.0)
    with Counter(2000, "translated") as count:
        count.add(0)  # no text was blank
        count.add(500)  # its batch was compiled first
        count.add(500)
    none, first, second = capsys.readouterr().err.splitlines()
    assert (none, first) == ("translated 0/2000", "translated 500/2000")
    assert re.fullmatch(r"translated 1000/2000, \d+ s left", second)


BAD = [
    b"null",
    b"{}",
    b"[1]",
    b"\xff\xfe",
    b'{"kind": "train", "step": "40", "loss": 1.0}',
    b'{"kind": "train", "step": true, "loss": 1.0}',
    b'{"kind": "train", "step": 40, "loss": "1.0"}',
    b'{"kind": [], "step": 40}',
    b'{"kind": "train", "loss": 1.0}',
]


@pytest.mark.parametrize("bad", BAD)
def test_a_line_that_is_no_row_is_skipped_and_named(tmp_path: Path, bad: bytes) -> None:
    good = b'{"kind": "train", "step": 4, "loss": 1.0}'
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(good + b"\n" + bad + b"\n" + good + b"\n")
    assert read_metrics(path) == [json.loads(good)] * 2
    assert describe_bad_lines(path) == f"{path}: line 2 is no row of metrics and is skipped"
    with MetricsLog(tmp_path, 4):
        pass
    assert rows(tmp_path) == [json.loads(good)] * 2


def test_the_unfinished_line_of_a_killed_process_is_not_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert describe_bad_lines(path) is None
    path.write_text('{"kind": "train", "step": 4}\n{"kind": "tra')
    assert describe_bad_lines(path) is None
    path.write_text("x\n" * 7)
    assert describe_bad_lines(path) == (
        f"{path}: lines 1, 2, 3, 4, 5, ... are no rows of metrics and are skipped"
    )


def test_rows_that_cannot_be_written_end_with_one_line(tmp_path: Path) -> None:
    """Closing the file fails again, which is not said."""
    log = MetricsLog(tmp_path, 0)
    log._file.close()
    log._file = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    with pytest.raises(InputError, match=r"metrics\.jsonl .* written \(No space left"), log:
        log.write({"kind": "train", "step": 1, "loss": 2.5})
