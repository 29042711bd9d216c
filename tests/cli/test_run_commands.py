"""What is told, drawn and handed on of a run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from encdec import config as configs
from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig
from encdec.data.dates import dates
from encdec.inference import translator
from encdec.plots.runs import learning_curves, named
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.metrics_log import append_metrics
from encdec.runs.parameters import best_params
from encdec.search.options import SearchOptions
from encdec.types import SpecialIds
from tests.commands import refused
from tests.small_run import SMALL, small_run

PAD, _, EOS, _ = SpecialIds()

LENGTH = 48
SINGLE_DEVICE = """
import sys
import jax.export
import numpy as np
with open(sys.argv[1], "rb") as file:
    program = jax.export.deserialize(bytearray(file.read()))
tokens, lengths = program.call(np.load(sys.argv[2]))
np.savez(sys.argv[3], tokens=tokens, lengths=lengths)
assert not {"encdec", "flax"} & sys.modules.keys()
"""
"""A process that knows nothing of this package."""


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A run that was trained, validated twice and tested twice, as its rows say."""
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


def test_what_a_run_is_and_how_it_scored(encdec, measured: Path) -> None:
    found = json.loads(encdec("info", measured, "--json").out)
    kept, _ = best_params(runs.load(measured))
    assert found["parameters"] == sum(leaf.size for leaf in checkpoints.flat(kept).values())
    assert found["model"] == "transformer"
    assert found["steps"] == {"done": 0, "of": 1}  # it has only the best parameters
    assert found["minutes"] == 3.0
    assert found["trained on"]["device"] == "1 x abacus"
    assert found["best"] == {"step": 5, "bleu": 11.0}
    assert found["tested"] == [{"name": "a", "step": 5, "beam": 5, "bleu": 12.0}]
    text = encdec("info", measured).out
    for part in ("transformer", "1 x abacus", "step 5, bleu 11", "name a, step 5, beam 5, bleu 12"):
        assert part in text


def test_a_run_that_has_only_begun_is_told_of(encdec, tmp_path: Path) -> None:
    found = json.loads(encdec("info", small_run(tmp_path / "run").path, "--json").out)
    assert not {"best", "tested", "minutes", "trained on"} & found.keys()


def test_curves_are_what_was_measured(encdec, measured: Path, tmp_path: Path) -> None:
    run = runs.load(measured)
    assert learning_curves([run], "loss") == {
        "run, validation": ([5.0, 10.0], [3.5, 3.25]),
        "run, training": ([5.0, 10.0], [4.0, 3.0]),
    }
    assert learning_curves([run], "bleu") == {"run": ([5.0, 10.0], [11.0, 10.0])}
    for name in ("curves.png", "curves.svg"):
        assert encdec("plot", measured, "--out", tmp_path / name).code == 0
        assert (tmp_path / name).stat().st_size > 1000
    assert "nats a token" in (tmp_path / "curves.svg").read_text()


def test_runs_of_one_name_are_told_apart(measured: Path, tmp_path: Path) -> None:
    first, second = runs.load(measured), small_run(tmp_path / "other" / "run")
    assert named([first]) == {"run": first}
    assert list(named([first, second]).values()) == [first, second]
    assert list(named([first, second])) == [str(run.path.resolve()) for run in (first, second)]


def test_what_cannot_be_drawn_is_refused(encdec, measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    refused(encdec("plot", "--out", out), "no run is named")
    refused(encdec("plot", measured, "--out", out, "--score", "blue"), "has no blue")
    refused(encdec("plot", measured, "--out", out, "--by-length"), "evaluate", "--by-length")
    refused(encdec("info", tmp_path), "not a run folder")
    assert not out.exists()


@pytest.mark.parametrize(
    "model", [SMALL, Seq2SeqConfig(embed=4, hidden=6), AttentionConfig(embed=4, hidden=6)]
)
def test_a_program_finds_what_translate_finds(encdec, tmp_path: Path, model: ModelConfig) -> None:
    """200 sentences, in a process of its own with JAX alone."""
    path, out = small_run(tmp_path / "run", model).path, tmp_path / "out"
    assert encdec("export", path, "--out", out, "--source-length", LENGTH).code == 0
    opened = translator.load(path)
    source, target = opened.run.src_vocabulary, opened.run.tgt_vocabulary
    texts = list(dates(300, 1).train.src[:200])
    src = np.full((len(texts), LENGTH), PAD, np.int32)
    for row, text in zip(src, texts, strict=True):
        ids = [*source.encode(text), EOS]
        row[: len(ids)] = ids
    np.save(tmp_path / "src.npy", src)
    files = [out / "greedy.stablehlo", tmp_path / "src.npy", tmp_path / "found.npz"]
    subprocess.run([sys.executable, "-c", SINGLE_DEVICE, *files], check=True, cwd=tmp_path)
    found = np.load(files[2])
    expected = opened.translate(texts, SearchOptions(beam=1))
    for tokens, length, best in zip(found["tokens"], found["lengths"], expected, strict=True):
        assert target.tokens(tokens[:length].tolist()) == best.tgt_tokens


def test_weights_and_settings_go_along(encdec, tmp_path: Path) -> None:
    path, out = small_run(tmp_path / "run").path, tmp_path / "out"
    assert encdec("export", path, "--out", out).code == 0
    run = runs.load(path)
    kept, _ = best_params(run)
    weights = load_file(out / "model.safetensors")
    assert weights.keys() == checkpoints.flat(kept).keys()
    for name, leaf in checkpoints.flat(kept).items():
        np.testing.assert_array_equal(weights[name], leaf)
    told = json.loads((out / "config.json").read_text())
    assert configs.from_json(told["config"]) == run.config
    assert (out / "source.vocab").read_bytes() == (path / "source.vocab").read_bytes()
    refused(encdec("export", path, "--out", out), "is there already")
    refused(encdec("export", path, "--out", out / "b", "--source-length", 1), "from 2 to")
    refused(encdec("export", path, "--out", out / "b", "--source-length", 9999), "from 2 to")
