"""`encdec train`, end to end: the run that it leaves, resuming, and what it refuses."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from encdec.cli.train import parse_train
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.metrics_log import read_metrics
from encdec.runs.parameters import best_params
from tests.cli.numbers import SETTINGS
from tests.commands import refused
from tests.small_run import small_run

THREE = ["--source", "three", "--target", "three"]
THREE += ["--valid-source", "three", "--valid-target", "three"]


def test_train_leaves_a_whole_run_and_says_what_it_did(trained) -> None:
    run, found = trained
    assert found.code == 0, found.err
    for name in ("config.json", "source.vocab", "target.vocab", "heldout.jsonl", "attention.png"):
        assert (run / name).is_file()
    rows = read_metrics(run / "metrics.jsonl")
    assert [r["step"] for r in rows if r["kind"] == "train"] == [40, 80, 120, 160, 200, 240]
    assert [r["step"] for r in rows if r["kind"] == "valid"] == [80, 160, 240]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < 0.1 < losses[0]
    assert list((run / "tensorboard").iterdir())
    for part in ("exact match", "BLEU", "reference", str(run), "attention.png", "version:"):
        assert part in found.out
    assert "8 of 84 pairs are held out" in found.err
    shown = [line for line in found.err.splitlines() if "validation: loss" in line]
    last = next(row for row in reversed(rows) if row["kind"] == "valid")
    assert len(shown) == 3
    assert f"step 240, validation: loss {last['loss']:.4f}, BLEU {last['bleu']:.2f}" in shown[-1]
    assert "batches have 1 shape:" in found.err
    assert "(shape 1 of 1)" in found.err
    assert "Traceback" not in found.err


def test_the_same_command_again_trains_no_further(trained, corpus: Path, encdec) -> None:
    run, _ = trained
    before = (run / "metrics.jsonl").read_bytes()
    same = ["train", "--model", "attention", "--tsv", corpus / "pairs.tsv.gz", "--run", run]
    found = encdec(*same, *SETTINGS)
    assert found.code == 0
    assert "has its 240 steps already" in found.err
    assert (run / "metrics.jsonl").read_bytes() == before


def test_resume_goes_on_under_the_runs_own_settings(corpus: Path, tmp_path: Path, encdec) -> None:
    start = ["train", "tiny", "--model", "seq2seq", "--tsv", corpus / "pairs.tsv"]
    settings = [*SETTINGS, "--max-steps", "4", "--evaluate-every", "2", "--log-every", "2"]
    assert encdec(*start, "--run", tmp_path / "run", *settings).code == 0
    found = encdec("train", "--resume", tmp_path / "run", "--max-steps", "6")
    earlier = encdec("train", "--resume", tmp_path / "run", "--max-steps", "5")
    refused(earlier, "max_steps = 5", "has 6 steps already")
    assert found.code == 0, found.err
    assert "from step 4 of 6" in found.err
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 4, 6]


def test_another_number_of_steps_keeps_the_defaults_that_a_run_began_with(tmp_path: Path) -> None:
    made = small_run(tmp_path / "made").config
    begun = replace(made, training=replace(made.training, warmup=12))
    begun = replace(begun, data=replace(begun.data, num_buckets=5))
    runs.create(replace(runs.load(tmp_path / "made"), path=tmp_path / "run", config=begun))
    command = ["dates", "--run", str(tmp_path / "run"), "--max-steps", "20"]
    config = parse_train(command).config
    assert (config.training.warmup, config.data.num_buckets) == (12, 5)
    config = parse_train([*command, "--warmup", "3"]).config
    assert (config.training.warmup, config.data.num_buckets) == (3, 5)


@pytest.mark.parametrize("corpus", ["dates", "files"])
def test_the_end_of_a_schedule_has_a_way_out(corpus: str, tmp_path: Path, encdec) -> None:
    made = small_run(tmp_path / "made")
    training = replace(made.config.training, schedule="cosine", max_steps=300)
    data = made.config.data if corpus == "dates" else replace(made.config.data, tsv=("x.tsv",))
    config = replace(made.config, training=training, data=data)
    run = tmp_path / "run"
    runs.create(replace(made, path=run, config=config))
    says = encdec("train", "--resume", run, "--max-steps", 600)
    refused(says, "cannot become 600", "ends at 300", f"--init-from {run} --run NEW")
    assert ("train dates --init-from" in says.err) == (corpus == "dates")
    assert ("with its corpus" in says.err) == (corpus == "files")


def test_the_options_of_a_resume_are_in_its_help_and_in_that_of_train(encdec) -> None:
    resume = encdec("train", "--resume", "--help")
    assert resume.code == 0
    assert "--init-from RUN" in " ".join(resume.out.split())
    assert "--learning-rate" not in resume.out
    options = set(re.findall(r"\s--[a-z-]+", resume.out)) - {" --init-from", " --run", " --help"}
    start = encdec("train", "--help").out.split("╭")[0]
    assert {" --max-steps", " --layout", " --precision"} < options
    for option in options - {" --resume"}:
        assert option in start or option.startswith(" --no-")
    assert encdec("train", "--resume", "x", "-h").out == resume.out


@pytest.mark.parametrize(
    ("given", "warmup", "buckets"),
    [
        ([], 2000, 12),
        (["--max-steps", "150"], 37, 2),
        (["--max-steps=150", "--warmup", "5"], 5, 2),
        (["--max-steps", "150", "--num-buckets", "7"], 37, 7),
        (["--max-steps", "9000"], 2000, 12),
    ],
)
def test_a_short_run_has_a_short_warmup_and_few_shapes(given, warmup: int, buckets: int) -> None:
    config = parse_train(["tiny", "--tsv", "x.tsv", *given]).config
    assert (config.training.warmup, config.data.num_buckets) == (warmup, buckets)


def test_the_same_command_saves_a_best_that_a_kill_left_out(
    corpus: Path, tmp_path: Path, encdec
) -> None:
    run = tmp_path / "run"
    start = ["train", "tiny", "--model", "seq2seq", "--tsv", corpus / "pairs.tsv", "--run", run]
    settings = ["--max-steps", "4", "--evaluate-every", "2"]
    assert encdec(*start, *SETTINGS, *settings).code == 0
    before, step = best_params(runs.load(run))
    assert step == 4  # the loss falls
    shutil.rmtree(run / "checkpoints" / "best")
    found = encdec(*start, *SETTINGS, *settings)
    assert "has its 4 steps already" in found.err
    assert checkpoints.steps(run, "best") == [4]
    jax.tree.map(np.testing.assert_array_equal, best_params(runs.load(run))[0], before)


def test_other_settings_for_a_run_that_is_there_are_refused(trained, corpus: Path, encdec) -> None:
    run, _ = trained
    same = ["train", "--model", "attention", "--tsv", corpus / "pairs.tsv.gz", "--run", run]
    before = {p: p.read_bytes() for p in run.iterdir() if p.is_file()}
    refused(encdec(*same, *SETTINGS, "--hidden", "33"), "hidden = 32, not 33", "--resume", "--run")
    refused(encdec("train", "--run", run), "--resume", "another folder")
    (run.parent / "not-a-run").mkdir()
    (run.parent / "not-a-run" / "precious").write_text("text")
    refused(encdec("train", "--run", run.parent / "not-a-run"), "is not a run folder", "--run")
    assert {p: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_another_corpus_for_a_run_that_is_there_is_refused(
    corpus: Path, tmp_path: Path, encdec
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text((corpus / "pairs.tsv").read_text())
    start = ["train", "--model", "seq2seq", "--tsv", pairs, "--run", tmp_path / "run"]
    settings = [*SETTINGS, "--max-steps", "2"]
    assert encdec(*start, *settings).code == 0
    with pairs.open("a") as file:
        file.write("eins eins eins eins\tone one one one\n")
    refused(encdec(*start, *settings), "another corpus", "--run")


def test_a_corpus_that_has_moved_is_taken_from_its_new_place(
    corpus: Path, tmp_path: Path, encdec
) -> None:
    old, new, run = tmp_path / "old", tmp_path / "new", tmp_path / "run"
    old.mkdir()
    shutil.copy(corpus / "pairs.tsv", old)
    settings = ["--model", "seq2seq", *SETTINGS, "--evaluate-every", "2", "--run", run]
    assert encdec("train", "--tsv", old / "pairs.tsv", *settings, "--max-steps", "2").code == 0
    old.rename(new)
    moved = new / "pairs.tsv"
    refused(encdec("train", "--resume", run), str(old), "is not there", "--tsv")
    resumed = encdec("train", "--resume", run, "--tsv", moved, "--max-steps", "4")
    assert resumed.code == 0, resumed.err
    assert f"tsv is {moved} instead of {old / 'pairs.tsv'}" in resumed.err
    assert "from step 2 of 4" in resumed.err
    assert runs.load(run).config.data.tsv == (str(moved),)
    shutil.move(moved, tmp_path)
    again = encdec("train", "--tsv", tmp_path / "pairs.tsv", *settings, "--max-steps", "4")
    assert "has its 4 steps already" in again.err
    with (tmp_path / "pairs.tsv").open("a") as file:
        file.write("eins eins eins eins\tone one one one\n")
    refused(encdec("train", "--resume", run, "--tsv", tmp_path / "pairs.tsv"), "another corpus")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--init", "x"], ["unknown option --init", "did you mean --init-from"]),
        (["--max-ratio", "3"], ["unknown option --max-ratio (encdec train [PRESET] --help"]),
        (
            ["tiny", "--model", "seq2seq", "--width", "16"],
            ["unknown option --width (encdec train [PRESET] --model seq2seq --help lists all)"],
        ),
        (["--seed", "1,2"], ["--seed '1,2' cannot be used: it must be a whole number"]),
        (["--dropout", "much"], ["--dropout 'much' cannot be used: it must be a number"]),
        (["--holdout", "x"], ["--holdout 'x' cannot be used: it must be a number"]),
        (["--seed", str(2**64)], ["seed", "below 2^64"]),
        (["--learning-rate", "inf"], ["learning_rate = inf", "finite"]),
        (["--tsv", "x.tsv", "--train-split", "a"], ["train_split = 'a' needs a corpus"]),
        (["--model", "attention", "--score", "dot", "--hidden", "9"], ["hidden = 9", "even"]),
        (["--resume"], ["--resume names no run", "encdec train --resume RUN"]),
        (["--resume="], ["--resume names no run"]),
        (
            ["--resume", "src", "--hidden", "8"],
            ["--hidden cannot be given with --resume", "--layout"],
        ),
        (["--resume", "src", "--layuot", "1x1"], ["unknown option --layuot", "--layout"]),
        (["--layrs", "8"], ["unknown option --layrs", "did you mean --layers"]),
        (["--model=seq2seq", "--hiden", "8"], ["option --hiden", "did you mean --hidden"]),
        (["--max-step=8"], ["unknown option --max-step", "did you mean --max-steps"]),
        (["datas"], ["unknown preset 'datas'", "did you mean dates"]),
        (["--model", "lstm"], ["unknown model 'lstm'", "seq2seq, attention, transformer"]),
        (["--max-steps", "many"], ["max-steps", "many"]),
        (["--model", "transformer", "--heads", "5"], ["heads = 5", "width = 64", "4"]),
        (["--dropout", "1.5"], ["dropout = 1.5", "below 1"]),
        (["tiny"], ["preset tiny needs a corpus", "--source", "--tsv"]),
        (["dates", "--tsv", "x.tsv"], ["preset dates has a built-in corpus", "tiny"]),
        (["--source", "src"], ["give source and target"]),
        (["--tsv", "missing.tsv"], ["missing.tsv", "No such file"]),
        (["--tsv", "empty.tsv"], ["empty.tsv", "empty"]),
        (["--tsv", "latin1.tsv"], ["latin1.tsv", "line 2", "UTF-8"]),
        (["--tsv", "columns.tsv"], ["columns.tsv", "line 2", "1 column between tabs"]),
        (["--tsv", "columns.tsv", "--tsv-columns", "1", "0"], ["tsv_columns = (1, 0)"]),
        (["--source", "two", "three", "--target", "two"], ["source names 2 files", "target 1"]),
        (["--source", "three", "two", "--target", "two", "two"], ["three has 3", "two has 2"]),
        (["--corpus", "wmt16"], ["corpus = 'wmt16'", "tfds:NAME/CONFIG"]),
        (["--corpus", "tfds:a", "--tsv", "x.tsv"], ["corpus and files given"]),
        (["dates", "--corpus", "tfds:a"], ["preset dates has a built-in corpus"]),
        (
            ["--corpus", "tfds:wmt16_translate/de-en", "--corpus-folder", "src"],
            ["not prepared", "encdec prepare tfds:wmt16_translate/de-en --corpus-folder /", "src`"],
        ),
        (["--source", "three", "--target", "two"], ["three", "two", "3", "2"]),
        ([*THREE, "--vocabulary", "words", "--run", "src/run"], ["src/run", "cannot be written"]),
        (["--resume", "nowhere"], ["nowhere", "not a folder"]),
        (["--resume", "."], ["not a run folder"]),
        (
            [*THREE, "--vocabulary", "words", "--vocabulary-size", "99"],
            ["99", "vocabulary"],
        ),
        (
            [*THREE, "--vocabulary-size", "5000"],
            ["5000", "vocabulary"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "-" in value[0] else None,
)
def test_train_refuses(
    arguments: list[str], parts: list[str], tmp_path: Path, encdec, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("src").write_text("a\n")
    Path("empty.tsv").write_text("")
    Path("latin1.tsv").write_bytes("a\tb\nä\tc\n".encode("latin-1"))
    Path("columns.tsv").write_text("a\tb\njust one\n")
    Path("three").write_text("a\nb\nc\n")
    Path("two").write_text("a\nb\n")
    before = sorted(tmp_path.rglob("*"))
    refused(encdec("train", *arguments), *parts)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--layers", "99999999"], ["layers = 99999999", "at most 1000"]),
        (["--decoder-layers", "1001"], ["decoder_layers = 1001", "at most 1000"]),
        (["--width", "2147483646", "--heads", "4"], ["width = 2147483646", "at most 1048576"]),
        (["--width", "1048576"], ["parameters needs", "this machine has", "smaller sizes"]),
        (["--model", "seq2seq", "--layers", "99999999"], ["layers = 99999999", "at most 1000"]),
        (["--model", "seq2seq", "--hidden", "1048576"], ["parameters needs", "fewer layers"]),
        (["--model", "attention", "--hidden", "9999999"], ["hidden = 9999999", "at most 1048576"]),
    ],
)
def test_a_model_that_no_machine_has_room_for_is_refused_at_once(
    encdec, tmp_path, monkeypatch: pytest.MonkeyPatch, options: list[str], parts: list[str]
) -> None:
    """Before the corpus is read, and a folder is made."""

    def read(*_: object) -> None:
        raise AssertionError("the corpus was read")

    monkeypatch.setattr("encdec.training.trainer.read_data", read)
    run = tmp_path / "run"
    refused(encdec("train", "dates", *options, "--run", run), *parts)
    assert not run.exists()


def test_a_model_that_does_not_fit_leaves_nothing_of_a_new_run(
    encdec, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    options = ["--date-sentences", 300, "--num-buckets", 1, "--layers", 1, "--max-steps", 1]
    monkeypatch.setattr("encdec.parallel.devices.device_memory", lambda: 2**19)
    for there in (False, True):
        if there:
            run.mkdir()
        found = encdec("train", "dates", *options, "--run", run)
        assert found.code == 2
        assert "parameters and optimizer need" in found.err.splitlines()[-1]
        assert run.exists() == there
    assert [*run.iterdir()] == []


def test_a_validation_that_does_not_fit_leaves_nothing_of_a_new_run(
    encdec, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state fits, but nothing beside it."""
    run = tmp_path / "run"
    options = ["--date-sentences", 300, "--num-buckets", 1, "--layers", 1, "--max-steps", 1]
    monkeypatch.setattr("encdec.inference.batch_search.hypothesis_bytes", lambda *_: 2**60)
    found = encdec("train", "dates", *options, "--run", run)
    assert found.code == 2
    assert "a validation does not fit beside parameters" in found.err.splitlines()[-1]
    assert not run.exists()
