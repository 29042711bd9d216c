"""Fixtures of the commands' tests."""

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from encdec.config import Seq2SeqConfig
from encdec.data.sources import Pairs
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.checkpoints import Checkpoints
from encdec.runs.metrics_log import append_metrics
from encdec.runs.parameters import abstract_params
from tests.cli.numbers import SETTINGS, number_pairs
from tests.commands import Outcome
from tests.small_run import small_run

SOURCES = ["3. Mai 1979", "", "1. Januar 2015", "12/11/2026"]
TARGETS = ["One &amp; two", "", "2015-01-01", "x Y z"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, a third with other held-out sentences, and a test set as files."""
    folder = tmp_path_factory.mktemp("evaluation")
    run = small_run(folder / "a", Seq2SeqConfig(cell="simple", embed=6, hidden=8))
    for name in ("b", "other"):
        shutil.copytree(folder / "a", folder / name)
    runs.create(replace(run, path=folder / "other", held_out=Pairs(["x"], ["y"])))
    params, _ = checkpoints.load(run.path, "best", {"params": abstract_params(run)})
    with Checkpoints(folder / "b") as saved:
        saved.save("best", 2, jax.tree.map(lambda leaf: 2 * leaf, params), {})
    rows = [f"{i}\t{t}\t{s}\n" for i, (s, t) in enumerate(zip(SOURCES, TARGETS, strict=True))]
    (folder / "one.tsv").write_text("".join(rows[:3]))
    with gzip.open(folder / "two.tsv.gz", "wt") as file:
        file.write(rows[3])
    (folder / "src").write_text("".join(f"{text}\n" for text in SOURCES))
    (folder / "tgt").write_text("".join(f"{text}\n" for text in TARGETS))
    return folder


@pytest.fixture
def piped() -> Iterator[Callable[[bytes], Path]]:
    """Makes a pipe that holds some bytes, as a shell does for `<(command)`: its path."""
    opened = []

    def pipe(content: bytes) -> Path:
        reading, writing = os.pipe()
        opened.append(reading)
        os.write(writing, content)
        os.close(writing)
        return Path(f"/dev/fd/{reading}")

    yield pipe
    for descriptor in opened:
        os.close(descriptor)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A run that was trained, validated twice and tested twice, as its metrics say."""
    path = small_run(tmp_path / "run").path
    for row in (
        {"kind": "start", "step": 0, "device": "1 x abacus", "jax": "0.9", "date": "2026-11-01"},
        {"kind": "train", "step": 5, "loss": 4.0, "seconds": 90.0},
        {"kind": "valid", "step": 5, "loss": 3.5, "bleu": 11.0},
        {"kind": "train", "step": 10, "loss": 3.0, "seconds": 90.0},
        {"kind": "valid", "step": 10, "loss": 3.25, "bleu": 10.0},
        {"kind": "test", "step": 5, "name": "a", "beam": 1, "bleu": 1.0},
        {"kind": "test", "step": 5, "name": "a", "beam": 5, "bleu": 12.0},
    ):
        append_metrics(path / "metrics.jsonl", row)
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Number words as parallel files, a TSV file, and a gzipped one."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = "".join(f"{source}\t{target}\n" for source, target in number_pairs())
    (folder / "pairs.tsv").write_text(rows)
    with gzip.open(folder / "pairs.tsv.gz", "wt") as file:
        file.write(rows)
    (folder / "src").write_text("".join(f"{source}\n" for source, _ in number_pairs()))
    (folder / "tgt").write_text("".join(f"{target}\n" for _, target in number_pairs()))
    return folder


@pytest.fixture(scope="session")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run with attention, trained by the command in a process of its own, and its outcome."""
    run = tmp_path_factory.mktemp("runs") / "numbers"
    arguments = ["train", "--model", "attention", "--tsv", corpus / "pairs.tsv.gz", "--run", run]
    done = subprocess.run(
        [sys.executable, "-m", "encdec.cli", *arguments, *SETTINGS],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(corpus / "cache")},
    )
    return run, Outcome(done.returncode, done.stdout, done.stderr)
