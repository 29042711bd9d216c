"""`encdec evaluate` on runs with any parameters: what it measures, keeps and refuses."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from encdec.config import TrainingConfig
from encdec.data.sources import Pairs
from encdec.runs import run as runs
from encdec.runs.metrics_log import read_metrics
from tests.commands import refused
from tests.small_run import small_run

GREEDY = ["--beam", 1]


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


def test_sources_longer_than_in_training_are_counted(trained, tmp_path: Path, encdec) -> None:
    run, _ = trained
    (tmp_path / "long.tsv").write_text("eins\tone\n" + "zwei " * 9 + "\ttwo\n")
    found = encdec("evaluate", run, "--tsv", tmp_path / "long.tsv", "--json")
    assert json.loads(found.out)["sentences"] == 2
    assert (
        "1 of 2 sources have more than the 6 tokens that the model was trained for (sentence 2: 9)"
        in found.err
    )


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
    refused(
        encdec("evaluate", run, "--source", corpus / "src"), "as many source files as target files"
    )


def test_evaluate_on_tsv_files(folder: Path, tmp_path: Path, encdec) -> None:
    tsv = ["--tsv", folder / "one.tsv", folder / "two.tsv.gz", "--tsv-columns", 3, 2]
    found = encdec(
        *("evaluate", folder / "a", *tsv, *GREEDY, "--output", tmp_path / "out", "--json")
    )
    assert found.code == 0, found.err
    scores = json.loads(found.out)
    assert (scores["kind"], scores["step"], scores["beam"]) == ("test", 1, 1)
    assert (scores["name"], scores["sentences"]) == ("one+two", 4)  # the blank one too
    files = ["--source", folder / "src", "--target", folder / "tgt"]
    same = json.loads(encdec("evaluate", folder / "a", *files, *GREEDY, "--json").out)
    ignored = {"name": None, "seconds": None}
    assert same | ignored == scores | ignored
    assert same["name"] == "src"
    rows = [r for r in read_metrics(folder / "a" / "metrics.jsonl") if r["kind"] == "test"]
    assert rows[-2:] == [scores, same]
    translated = encdec("translate", folder / "a", "--input", folder / "src", *GREEDY)
    assert (tmp_path / "out").read_text() == translated.out
    assert translated.out.split("\n")[1] == ""


def test_scores_are_those_of_sacrebleus_own_command(folder: Path, tmp_path: Path, encdec) -> None:
    options = ["--bleu-tokenizer", "char", "--lowercase", "True", "--metrics", "bleu", "chrf"]
    files = ["--source", folder / "src", "--target", folder / "tgt", "--output", tmp_path / "out"]
    found = json.loads(encdec("evaluate", folder / "b", *files, *GREEDY, *options, "--json").out)
    assert "ter" not in found
    command = [sys.executable, "-m", "sacrebleu", folder / "tgt", "-i", tmp_path / "out"]
    command += ["-m", "bleu", "chrf", "-lc", "--chrf-lowercase", "-tok", "char", "-w", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = {one["name"]: one for one in json.loads(done.stdout)}
    assert found["bleu"] == pytest.approx(theirs["BLEU"]["score"], abs=1e-5)
    assert found["chrf"] == pytest.approx(theirs["chrF2"]["score"], abs=1e-5)
    assert found["bleu_signature"] == theirs["BLEU"]["signature"]


def test_the_runs_settings_say_how_to_compare(folder: Path, tmp_path: Path, encdec) -> None:
    shutil.copytree(folder / "a", tmp_path / "run")
    run = runs.load(tmp_path / "run")
    data = replace(run.config.data, lowercase=True)
    config = replace(run.config, data=data, training=TrainingConfig(bleu_tokenizer="none"))
    runs.create(replace(run, config=config))
    found = json.loads(encdec("evaluate", tmp_path / "run", *GREEDY, "--json").out)
    assert "case:lc" in found["chrf_signature"]
    assert "tok:none" in found["bleu_signature"]
    given = ["--lowercase", "False", "--bleu-tokenizer", "13a"]
    found = json.loads(encdec("evaluate", tmp_path / "run", *GREEDY, *given, "--json").out)
    assert "case:mixed|eff:no|tok:13a" in found["bleu_signature"]
    # Text that is joined again is no longer tokenised; sacreBLEU's own name for the option.
    for given, tokenizer in (([], "13a"), (["--tokenize", "intl"], "intl")):
        command = ["evaluate", tmp_path / "run", *GREEDY, "--detokenize", "en", *given, "--json"]
        assert f"|tok:{tokenizer}|" in json.loads(encdec(*command).out)["bleu_signature"]
    command = ["compare", folder / "a", tmp_path / "run", *GREEDY, "--samples", 9, "--json"]
    refused(encdec(*command), "different bleu_tokenizer (13a and none)", "by --bleu-tokenizer")
    refused(encdec(*command, "--tokenize", "13a"), "different lowercase", "by --lowercase")
    found = json.loads(encdec(*command, "--tokenize", "13a", "--lowercase", "False").out)
    assert found["value_a"] == found["value_b"]


def test_the_runs_settings_say_which_columns(folder: Path, tmp_path: Path, encdec) -> None:
    shutil.copytree(folder / "a", tmp_path / "run")
    run = runs.load(tmp_path / "run")
    data = replace(run.config.data, tsv=("train.tsv",), tsv_columns=(3, 2))
    runs.create(replace(run, config=replace(run.config, data=data)))
    command = ["evaluate", tmp_path / "run", "--tsv", folder / "one.tsv", *GREEDY, "--json"]
    left_out, given = (encdec(*command, *how).out for how in ([], ["--tsv-columns", 3, 2]))
    assert json.loads(left_out) | {"seconds": 0} == json.loads(given) | {"seconds": 0}


def test_several_references(folder: Path, tmp_path: Path, encdec, piped) -> None:
    """As files and as columns; the last ones are the translations themselves."""
    files = ["--source", folder / "src", "--target", folder / "tgt"]
    command = ["evaluate", folder / "a", *GREEDY, "--json"]
    one = json.loads(encdec(*command, *files, "--output", tmp_path / "own").out)
    (tmp_path / "other").write_text("a\nb\nc\nd\n")
    more = ["--extra-references", tmp_path / "other", tmp_path / "own"]
    found = json.loads(encdec(*command, *files, *more).out)
    assert "nrefs:3" in found["bleu_signature"]
    assert (found["exact_match"], found["ter"]) == (1, 0)
    assert found["loss"] == one["loss"]  # of the first reference
    texts = [path.read_text().splitlines() for path in (folder / "src", folder / "tgt", *more[1:])]
    lines = zip(*texts, strict=True)
    (tmp_path / "all.tsv").write_text("".join("\t".join(cells) + "\n" for cells in lines))
    columns = ["--tsv", tmp_path / "all.tsv", "--tsv-columns", 1, 2, 3, 4]
    ignored = {"name": None, "seconds": None}
    for tsv in (tmp_path / "all.tsv", piped((tmp_path / "all.tsv").read_bytes())):
        columns[1] = tsv
        same = json.loads(encdec(*command, *columns).out)
        assert same | ignored == found | ignored


def test_evaluate_by_length(folder: Path, encdec) -> None:
    command = ["evaluate", folder / "a", *GREEDY, "--by-length", "--bounds", 1, 2]
    files = ["--source", folder / "src", "--target", folder / "tgt"]
    found = json.loads(encdec(*command, *files, "--json").out)
    rows = [(row["from"], row["to"], row["sentences"]) for row in found["by_length"]]
    assert rows == [(0, 1, 2), (3, None, 2)]
    assert read_metrics(folder / "a" / "metrics.jsonl")[-1] == found
    text = encdec(*command, *files).out
    assert "source words" in text
    assert "3 and more" in text


def test_evaluate_joins_tokens(folder: Path, tmp_path: Path, encdec) -> None:
    (tmp_path / "src").write_text("\n")
    (tmp_path / "tgt").write_text("it &apos;s so .\n")
    files = ["--source", tmp_path / "src", "--target", tmp_path / "tgt"]
    command = ["evaluate", folder / "a", *files, "--detokenize", "en", "--json"]
    found = json.loads(encdec(*command).out)
    assert found["detokenize"] == "en"
    assert found["token_error_rate"] == 100
    refused(encdec(*command[:-2], "English"), "detokenize = 'English'", "code of a language")


def test_a_run_that_cannot_record_its_metrics_is_evaluated(
    folder: Path, tmp_path: Path, encdec
) -> None:
    shutil.copytree(folder / "a", tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink(missing_ok=True)
    (tmp_path / "run" / "metrics.jsonl").mkdir()
    found = encdec("evaluate", tmp_path / "run", *GREEDY)
    assert found.code == 0
    assert "BLEU" in found.out
    assert "did not record these metrics: Is a directory" in found.err


def test_evaluate_refuses(folder: Path, tmp_path: Path, encdec) -> None:
    shutil.copytree(folder / "a", tmp_path / "unfinished")
    shutil.rmtree(tmp_path / "unfinished" / "checkpoints")
    run, src, tgt = folder / "a", folder / "src", folder / "tgt"
    both = ["--source", src, "--target", tgt]
    cases: list[tuple[list[object], list[str]]] = [
        ([tmp_path / "unfinished"], ["no best checkpoint", "train it first"]),
        ([tmp_path / "nowhere"], ["nowhere", "not a folder"]),
        ([run, "--target", tgt], ["as many source files as target files"]),
        ([run, *both, "--tsv", folder / "one.tsv"], ["or only tsv files"]),
        ([run, *both, tgt], ["as many source files as target files"]),
        ([run, *both, "--extra-references", folder / "one.tsv"], ["one.tsv has 3", "4", "src"]),
        ([run, "--extra-references", tgt], ["tgt has 4 lines", "7 sentences", "held-out"]),
        ([run, *both, "--extra-references", tmp_path / "no"], ["no", "No such file"]),
        ([run, "--source", src, "--target", tmp_path / "no"], ["no", "No such file"]),
        ([run, "--source", src, "--target", folder / "one.tsv"], ["4 lines", "3", "line i"]),
        ([run, "--tsv", folder / "one.tsv", "--tsv-columns", 1, 9], ["one.tsv, line 1", "9"]),
        ([run, "--tsv", folder / "one.tsv", "--tsv-columns", 0, 1], ["counted from 1"]),
        ([run, "--metrics", "blue"], ["metric 'blue' is unknown; did you mean bleu?"]),
        ([run, "--metrics", "loss"], ["metric 'loss'", "not computed from texts"]),
        ([run, "--bleu-tokenizer", "13b"], ["13b"]),
        ([run, "--by-length", "--bounds", 20, 10], ["bounds = 20 10", "rising"]),
        ([run, *both, "--output", src], ["src is an input"]),
        ([run, "--output", run / "heldout.jsonl"], ["heldout.jsonl is a file in the run"]),
        ([run, "--output", tmp_path / "no" / "out"], ["cannot be written"]),
        ([run, "--detokenise", "en"], ["--detokenise", "did you mean --detokenize"]),
        ([run, "--max-batch-tokens", 0], ["max_batch_tokens = 0"]),
    ]
    before = (run / "heldout.jsonl").read_bytes(), src.read_bytes()
    for arguments, parts in cases:
        refused(encdec("evaluate", *arguments), *parts)
    assert ((run / "heldout.jsonl").read_bytes(), src.read_bytes()) == before


def test_a_run_without_held_out_sentences_needs_a_test_set(tmp_path: Path, encdec) -> None:
    run = small_run(tmp_path / "run")
    runs.create(replace(run, held_out=Pairs([], [])))
    refused(encdec("evaluate", run.path), "has no sentences that were held out", "--tsv")
