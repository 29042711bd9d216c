"""The commands, end to end: what they print, what they leave, what they refuse."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.image import imread

from encdec.cli.main import COMMANDS
from encdec.plots.attention import attention_figure
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.metrics_log import read_metrics
from encdec.runs.parameters import best_params
from tests.commands import Outcome, refused
from tests.small_run import small_run

WORDS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four"}
SMALL = [
    *("--vocabulary", "words", "--embed", "16", "--hidden", "32", "--dropout", "0"),
    *("--max-steps", "240", "--learning-rate", "0.01", "--warmup", "20", "--label-smoothing", "0"),
    *("--batch-tokens", "160", "--evaluate-every", "80", "--log-every", "40", "--num-buckets", "2"),
    *("--max-source-length", "6", "--best-metric", "loss"),
]


THREE = ["--source", "three", "--target", "three"]
THREE += ["--valid-source", "three", "--valid-target", "three"]


def numbers() -> list[tuple[str, str]]:
    """All sentences of one to three words."""
    words = list(WORDS)
    sentences = [[a] for a in words] + [[a, b] for a in words for b in words]
    sentences += [[a, b, c] for a in words for b in words for c in words]
    return [(" ".join(s), " ".join(WORDS[w] for w in s)) for s in sentences]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rows = "".join(f"{source}\t{target}\n" for source, target in numbers())
    (folder / "pairs.tsv").write_text(rows)
    with gzip.open(folder / "pairs.tsv.gz", "wt") as file:
        file.write(rows)
    (folder / "src").write_text("".join(f"{source}\n" for source, _ in numbers()))
    (folder / "tgt").write_text("".join(f"{target}\n" for _, target in numbers()))
    return folder


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run with attention, trained by the command line in a process of its own."""
    run = tmp_path_factory.mktemp("runs") / "numbers"
    arguments = ["train", "--model", "attention", "--tsv", corpus / "pairs.tsv.gz", "--run", run]
    done = subprocess.run(
        [sys.executable, "-m", "encdec.cli", *arguments, *SMALL],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(corpus / "cache")},
    )
    return run, Outcome(done.returncode, done.stdout, done.stderr)


# --- train ---------------------------------------------------------------------------------------


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
    assert "Traceback" not in found.err


def test_the_same_command_again_trains_no_further(trained, corpus: Path, encdec) -> None:
    run, _ = trained
    before = (run / "metrics.jsonl").read_bytes()
    same = ["train", "--model", "attention", "--tsv", corpus / "pairs.tsv.gz", "--run", run]
    found = encdec(*same, *SMALL)
    assert found.code == 0
    assert "has its 240 steps already" in found.err
    assert (run / "metrics.jsonl").read_bytes() == before


def test_resume_goes_on_under_the_runs_own_settings(corpus: Path, tmp_path: Path, encdec) -> None:
    start = ["train", "tiny", "--model", "seq2seq", "--tsv", corpus / "pairs.tsv"]
    settings = [*SMALL, "--max-steps", "4", "--evaluate-every", "2", "--log-every", "2"]
    assert encdec(*start, "--run", tmp_path / "run", *settings).code == 0
    found = encdec("train", "--resume", tmp_path / "run", "--max-steps", "6")
    assert found.code == 0, found.err
    assert "from step 4 of 6" in found.err
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 4, 6]


def test_the_same_command_saves_a_best_that_a_kill_left_out(
    corpus: Path, tmp_path: Path, encdec
) -> None:
    run = tmp_path / "run"
    start = ["train", "tiny", "--model", "seq2seq", "--tsv", corpus / "pairs.tsv", "--run", run]
    settings = ["--max-steps", "4", "--evaluate-every", "2"]
    assert encdec(*start, *SMALL, *settings).code == 0
    before, step = best_params(runs.load(run))
    assert step == 4  # the loss falls
    shutil.rmtree(run / "checkpoints" / "best")
    found = encdec(*start, *SMALL, *settings)
    assert "has its 4 steps already" in found.err
    assert checkpoints.steps(run, "best") == [4]
    jax.tree.map(np.testing.assert_array_equal, best_params(runs.load(run))[0], before)


def test_other_settings_for_a_run_that_is_there_are_refused(trained, corpus: Path, encdec) -> None:
    run, _ = trained
    same = ["train", "--model", "attention", "--tsv", corpus / "pairs.tsv.gz", "--run", run]
    before = {p: p.read_bytes() for p in run.iterdir() if p.is_file()}
    refused(encdec(*same, *SMALL, "--hidden", "33"), "hidden = 32, not 33", "--resume", "--run")
    refused(encdec("train", "--run", run), "--resume", "another folder")
    (run.parent / "not-a-run").mkdir()
    (run.parent / "not-a-run" / "precious").write_text("text")
    refused(encdec("train", "--run", run.parent / "not-a-run"), "holds no run", "--run")
    assert {p: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_another_corpus_for_a_run_that_is_there_is_refused(
    corpus: Path, tmp_path: Path, encdec
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text((corpus / "pairs.tsv").read_text())
    start = ["train", "--model", "seq2seq", "--tsv", pairs, "--run", tmp_path / "run"]
    settings = [*SMALL, "--max-steps", "2"]
    assert encdec(*start, *settings).code == 0
    with pairs.open("a") as file:
        file.write("eins eins eins eins\tone one one one\n")
    refused(encdec(*start, *settings), "another corpus", "--run")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--layrs", "8"], ["unknown option --layrs", "did you mean --layers"]),
        (["--model=seq2seq", "--hiden", "8"], ["option --hiden", "did you mean --hidden"]),
        (["--max-step=8"], ["unknown option --max-step", "did you mean --max-steps"]),
        (["datas"], ["unknown preset 'datas'", "did you mean dates"]),
        (["--model", "lstm"], ["unknown model 'lstm'", "seq2seq, attention, transformer"]),
        (["--max-steps", "many"], ["max-steps", "many"]),
        (["--model", "transformer", "--heads", "5"], ["heads = 5", "width = 64", "4"]),
        (["--dropout", "1.5"], ["dropout = 1.5", "below 1"]),
        (["tiny"], ["preset tiny needs a corpus", "--source", "--tsv"]),
        (["dates", "--tsv", "x.tsv"], ["preset dates makes its own corpus", "tiny"]),
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
        (["dates", "--corpus", "tfds:a"], ["preset dates makes its own corpus"]),
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


# --- translate -----------------------------------------------------------------------------------


def test_lines_in_lines_out_in_order(trained, encdec) -> None:
    run, _ = trained
    lines = ["drei vier", "", "eins", "   ", "zwei eins drei"]
    stdin = "".join(f"{line}\n" for line in lines).encode()
    expected = [" ".join(WORDS[w] for w in line.split()) for line in lines]
    for options in ([], ["--beam", 1], ["--max-batch-tokens", 1]):
        found = encdec("translate", run, *options, stdin=stdin)
        assert (found.code, found.out.split("\n"), found.err) == (0, [*expected, ""], "")
    assert encdec("translate", run, stdin=b"").out == ""
    assert encdec("translate", run, stdin=b"eins").out == "one\n"
    assert encdec("translate", run, stdin=b"eins\r\n").out == "one\n"


def test_files_in_and_out(trained, tmp_path: Path, encdec) -> None:
    run, _ = trained
    with gzip.open(tmp_path / "in.gz", "wt") as file:
        file.write("zwei\n\nvier eins\n")
    out = tmp_path / "out"
    found = encdec("translate", run, "--input", tmp_path / "in.gz", "--output", out)
    assert (found.code, found.out) == (0, "")
    assert out.read_text() == "two\n\nfour one\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.gz", "out"]


def test_nbest_with_scores(trained, encdec) -> None:
    run, _ = trained
    found = encdec(
        *("translate", run, "--nbest", 3, "--scores", "--beam", 4), stdin=b"eins zwei\n\n"
    )
    rows = [line.split("\t") for line in found.out.splitlines()]
    assert len(rows) == 6
    scores = [float(score) for score, _ in rows]
    assert rows[0][1] == "one two"
    assert scores[0] >= scores[1] >= scores[2]
    assert all(score <= 0 for score in scores[:3])
    assert len({text for _, text in rows[:3]}) == 3
    assert [text for _, text in rows[3:]] == ["", "", ""]


def test_sampling_is_reproducible(trained, encdec) -> None:
    run, _ = trained
    draw = ["translate", run, "--sample", "--temperature", 3, "--top-k", 4, "--beam", 1]
    stdin = b"eins zwei drei\n" * 8
    one, same, other = (encdec(*draw, "--seed", s, stdin=stdin).out for s in (1, 1, 2))
    assert one == same != other
    assert len(set(one.splitlines())) > 1  # equal lines are drawn apart


@pytest.mark.parametrize("choice", ["cut", "keep", "empty", "stop"])
def test_a_line_too_long_is_named_and_never_dropped(trained, encdec, choice: str) -> None:
    run, _ = trained
    stdin = b"eins\n" + b"zwei " * 9 + b"\ndrei\n"
    found = encdec("translate", run, "--too-long", choice, stdin=stdin)
    assert "line 2 has 9 tokens, more than the 6" in found.err
    if choice == "stop":
        refused(found, "--too-long cut, keep or empty")
        return
    lines = found.out.splitlines()
    assert (found.code, len(lines), lines[0], lines[2]) == (0, 3, "one", "three")
    assert (lines[1] == "") == (choice == "empty")


def test_bytes_that_are_not_utf8_are_named(trained, tmp_path: Path, encdec) -> None:
    run, _ = trained
    refused(encdec("translate", run, stdin=b"eins\n\xff\xfe\n"), "stdin", "line 2", "UTF-8")
    (tmp_path / "bad").write_bytes(b"eins\nzwei\n\xe4\n")
    (tmp_path / "out").write_text("kept")
    found = encdec("translate", run, "--input", tmp_path / "bad", "--output", tmp_path / "out")
    refused(found, "bad", "line 3", "UTF-8")
    assert (tmp_path / "out").read_text() == "kept"


def test_translate_refuses(trained, tmp_path: Path, encdec) -> None:
    run, _ = trained
    (tmp_path / "in").write_text("eins\n")
    cases: list[tuple[list[object], list[str]]] = [
        ([run, "--nbest", 6], ["nbest = 6", "beam = 5"]),
        ([run, "--beam", 0], ["beam = 0", "at least 1"]),
        ([run, "--beem", 3], ["unknown option --beem", "did you mean --beam"]),
        ([run, "--max-batch-tokens", 0], ["max_batch_tokens = 0"]),
        ([run, "--input", tmp_path / "none"], ["none", "No such file"]),
        ([run, "--input", tmp_path / "in", "--output", tmp_path / "in"], ["is an input"]),
        ([run, "--input", tmp_path / "in", "--output", tmp_path / "no" / "out"], ["no/out"]),
        ([tmp_path / "nowhere"], ["nowhere", "not a folder"]),
        ([tmp_path], ["not a run folder"]),
        ([run, "--top-p", 2], ["top_p = 2.0", "at most 1"]),
    ]
    for arguments, parts in cases:
        refused(encdec("translate", *arguments, stdin=b"eins\n"), *parts)
    assert (tmp_path / "in").read_text() == "eins\n"


# --- evaluate ------------------------------------------------------------------------------------


def test_evaluate_on_the_held_out_set(trained, encdec) -> None:
    run, _ = trained
    found = json.loads(encdec("evaluate", run, "--json").out)
    assert found["sentences"] == 8
    assert found["exact_match"] == 1.0
    assert found["chrf"] == pytest.approx(100)
    assert 0 < found["loss"] < 0.1
    assert found["seconds"] > 0
    assert found["bleu_signature"].startswith("nrefs:1|")
    assert found["chrf_signature"].startswith("nrefs:1|")
    (row,) = (r for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "test")
    assert row == found  # whole, and read by whoever writes tables
    text = encdec("evaluate", run).out
    assert "8 sentences" in text
    assert found["bleu_signature"] in text


def test_evaluate_on_files(trained, corpus: Path, tmp_path: Path, encdec) -> None:
    run, _ = trained
    (tmp_path / "wrong").write_text("one\n" * 84)
    files = ["--source", corpus / "src", "--target", tmp_path / "wrong"]
    found = json.loads(encdec("evaluate", run, "--json", *files).out)
    assert found["sentences"] == 84
    assert found["exact_match"] == pytest.approx(1 / 84)
    (tmp_path / "short").write_text("one\n")
    refused(
        encdec("evaluate", run, "--source", corpus / "src", "--target", tmp_path / "short"),
        *("84", "1", "src", "short"),
    )
    refused(encdec("evaluate", run, "--source", corpus / "src"), "give source and target")


# --- attend --------------------------------------------------------------------------------------


def test_attend_draws_where_it_looked(trained, tmp_path: Path, encdec) -> None:
    run, _ = trained
    found = encdec("attend", run, "vier zwei", "--out", tmp_path / "map.png")
    assert (found.code, found.out) == (0, f"four two\n{tmp_path / 'map.png'}\n")
    assert imread(tmp_path / "map.png").std() > 0
    long = "eins " * 300
    refused(encdec("attend", run, long, "--out", tmp_path / "no.png"), "trained for", "shorten")
    refused(encdec("attend", run, " ", "--out", tmp_path / "no.png"), "TEXT is empty")
    refused(encdec("attend", run, "eins", "--out", tmp_path / "no.gif"), ".png or .svg")
    refused(encdec("attend", run, "eins"), "out")


def test_attend_draws_the_maps_that_are_asked_for(tmp_path: Path, encdec, monkeypatch) -> None:
    """Which weights, titles and labels reach the picture; what they are is the translator's."""
    run = small_run(tmp_path / "run").path  # 2 layers, 2 heads
    drawn: list[tuple] = []

    def draw(weights, columns, rows, titles, heads):
        drawn.append((weights.shape, len(columns), len(rows), titles, heads))
        return attention_figure(weights, columns, rows, titles, heads)

    monkeypatch.setattr("encdec.plots.runs.attention_figure", draw)
    start = ["attend", run, "3. Mai", "--out", tmp_path / "map.svg"]
    assert encdec(*start, "--maps", "encoder").code == 0
    titles = [f"layer {l}, head {h}" for l in (1, 2) for h in (1, 2)]
    assert drawn.pop() == ((4, 7, 7), 7, 7, titles, 2)
    assert encdec(*start, "--maps", "decoder", "--layer", "2").code == 0
    shape, columns, rows, titles, heads = drawn.pop()
    assert (shape, heads) == ((2, rows, columns), 2)
    assert titles == ["layer 2, head 1", "layer 2, head 2"]
    assert encdec(*start, "--head", "2", "--layer", "1").code == 0
    shape, columns, _, titles, heads = drawn.pop()
    assert (shape[0], columns, titles, heads) == (1, 7, ["layer 1, head 2"], 1)
    refused(encdec(*start, "--layer", "3"), "layer = 3", "1 to 2")
    refused(encdec(*start, "--maps", "decode"), "maps")


def test_attend_refuses_a_model_without_attention(corpus: Path, tmp_path: Path, encdec) -> None:
    start = ["train", "--model", "seq2seq", "--tsv", corpus / "pairs.tsv"]
    assert encdec(*start, "--run", tmp_path / "run", *SMALL, "--max-steps", "2").code == 0
    found = encdec("attend", tmp_path / "run", "eins", "--out", tmp_path / "map.png")
    refused(found, "seq2seq", "no attention")
    assert not (tmp_path / "map.png").exists()


# --- all -----------------------------------------------------------------------------------------


def test_help(encdec) -> None:
    for command in COMMANDS:
        assert f"\n  {command} " in encdec("--help").out
    assert encdec().out == encdec("-h").out
    found = encdec("train", "--model", "seq2seq", "--help")
    assert found.code == 0
    for part in ("--cell", "{simple,gru,lstm}", "--max-steps", "--reverse-source"):
        assert part in found.out
    refused(encdec("trian"), "unknown command 'trian'", "did you mean train")


def test_a_reader_that_goes_away_is_no_error(trained) -> None:
    run, _ = trained
    done = subprocess.run(
        ["bash", "-c", f"yes eins | head -9000 | {sys.executable} -m encdec.cli translate {run} "
         "--beam 1 | head -1; echo ${PIPESTATUS[2]}"],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["one", "0"]
    assert done.stderr == ""
