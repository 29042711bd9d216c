"""Command lines and files that cannot be used: exit code 2, one line, nothing half-made."""

import io
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from encdec.cli import translate
from encdec.config import Seq2SeqConfig
from encdec.types import InputError
from tests.cli.options import options_of_all_commands
from tests.commands import refused
from tests.small_run import small_run

REFUSED = """
frobnicate
translate
translate nowhere
translate folder
translate two
translate cut
translate novocab
translate nocheckpoint
translate badheld
translate run --input nowhere
translate run --input latin
translate run --input folder
translate run --input bad.gz
translate run --nbest 0
translate run --nbest 9
translate run --beam 0
translate run --beam x
translate run --beam
translate run --temperature nan
translate run --length-penalty inf
translate run --max-ratio inf
translate run --max-extra 100000000000
translate run --min-length 99999
translate run --seed 99999999999999999999999
translate run --top-p 2
translate run --mbr 10
translate run --beam-groups 2
translate run --stop sometimes
translate run --ban-ids 99999999999999999999999
translate run --layout 99x99
translate run --precision float16
translate run --input two --output two
translate run --input two --output run/config.json
translate run --input two --output nowhere/out
translate run --prefixes three --input two
translate run --terms two --input two
translate run --markup --keep '('
translate run --alignment
translate run --source-language xx
translate run run --ensemble-weights nan 1
translate run --max-batch-tokens 0
translate run --shortlist nowhere
translate run --shortlist two
translate run --shortlist-best 3
translate run --shortlist two --shortlist-best 0
shortlist run
shortlist run --out nowhere/table
shortlist run --out table
shortlist run --out table --best 0
shortlist run --out table --source two
shortlist run --out two --tsv two
shortlist run --out table --tsv two --tsv-columns 0 1
shortlist run --out table --source two --target two --tsv-columns 2 1
translate run --bean 3
evaluate
evaluate run run
evaluate run --source two
evaluate run --source two --target three
evaluate run --source empty --target empty
evaluate run --tsv one.tsv
evaluate run --tsv pairs.tsv --tsv-columns 1 9
evaluate run --tsv pairs.tsv --source two
evaluate run --corpus wmt
evaluate run --metrics blue
evaluate run --tokenize moses
evaluate run --lowercase maybe
evaluate run --by-length --bounds 5 3
evaluate run --bounds 3 5
evaluate run --split test
evaluate run --corpus-folder folder
evaluate run --tsv-columns 2 1
evaluate run --source two --target two --tsv-columns 1 2 3
evaluate run --bounds x
evaluate run --extra-references three
evaluate nocheckpoint
score
score run --source two
score run --tsv one.tsv
score run --nbest nbest --source two
score run --source two --target two --tsv-columns 2 1
score run --tsv pairs.tsv --output pairs.tsv
compare run
compare two two --target empty
compare two three --target two
compare run run --metric blue
compare run run --samples 99999999999999
attend run x
attend run x --out x.gif
attend run x --out x.png
attend run '' --out x.png
attend run x --out run/config.json
plot --out x.png
plot run --score loss
plot run --out x.gif
plot run --out x.png
plot badmetrics --out x.png
info
info nowhere
info run --json yes
doctor run
doctor --jsn
export run
export run --to onnx --out x
export run --to transformers --out x
export transformer --to transformers --out x
export run --to safetensors --out folder
export run --to safetensors --out x --source-length 5
export run --to stablehlo --out x --source-length 99999
export run --to stablehlo --out x --source-length x
import model
import nowhere --run x
import model --run x
import badmodel --run x
import folder --run x
import model --run run
prepare wmt
prepare tfds:
serve nowhere
serve run --port 99999
serve run --port x
serve run --most-beam 0
serve run --layout 99x1
serve nocheckpoint
train --max-steps 0
train --max-steps 99999999999999999999
train --learning-rate inf
train --clip-norm nan
train --batch-tokens 1
train --ema-decay 0.9 --average-last 2
train --scheduled-sampling 0.5
train --hidden 8
train --heads 3
train --model=
train --model attention --score dot --hidden 9
train --best-metric blue
train --vocabulary syllables
train --holdout nan
train --train-split x
train --source two --target two --tsv-columns 2 1
train --lora-rank 2 --freeze x
train --freeze nosuch
train dates --init-from run --freeze nosuch
train dates --init-from run --model attention
train --init-from run
train --tsv one.tsv
train --tsv blank.tsv
train --tsv bad.gz
train --tsv folder
train --tsv pairs.tsv --tsv-columns 1 x
train --tsv pairs.tsv --valid-source two
train --valid-tsv pairs.tsv
train --layout 1x3
train --processes 2
train --processes 2147483648 --process 0 --coordinator 127.0.0.1:9
train --gradient-accumulation 1000000000
train --date-sentences 1000000000
train --num-buckets 1000000000
train dates --init-from run --lora-rank 1000000000
train --run two
train --run run
train --run cut
train --resume
train --resume run --seed 3
train --resume run
train dates tiny
train -x
""".strip().splitlines()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, copies of one that lack a part or have a bad one, and bad files."""
    folder = tmp_path_factory.mktemp("refusals")
    run = small_run(folder / "run", Seq2SeqConfig(cell="simple", embed=6, hidden=8)).path
    small_run(folder / "transformer")
    for name in ("cut", "novocab", "nocheckpoint", "badheld", "badmetrics"):
        shutil.copytree(run, folder / name)
    (folder / "cut" / "config.json").write_text("{")
    (folder / "novocab" / "source.vocab").unlink()
    shutil.rmtree(folder / "nocheckpoint" / "checkpoints")
    (folder / "badheld" / "heldout.jsonl").write_text("[1]\n")
    (folder / "badmetrics" / "metrics.jsonl").write_text("x\n")
    for name in ("folder", "model", "badmodel"):
        (folder / name).mkdir()
    for name, text in {
        "two": "a\nb\n",
        "three": "a\nb\nc\n",
        "empty": "",
        "one.tsv": "a\n",
        "pairs.tsv": "a\tb\nc\td\n",
        "blank.tsv": "\t\n\t\n",
        "nbest": "0 ||| x\nq\n",
        "model/config.json": '{"model_type": "gpt2"}',
        "badmodel/config.json": "[",
    }.items():
        (folder / name).write_text(text)
    (folder / "latin").write_bytes("a\nä\n".encode("latin-1"))
    (folder / "bad.gz").write_bytes(b"x")
    return folder


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_used_is_refused(line: str, files: Path, encdec, monkeypatch) -> None:
    def accept(*_: Any) -> None:
        raise AssertionError("the command line was accepted")

    monkeypatch.chdir(files)
    monkeypatch.setattr("encdec.training.trainer.train_session", accept)
    before = {path: path.stat().st_mtime_ns for path in files.rglob("*") if path.is_file()}
    refused(encdec(*shlex.split(line), stdin=b"3. Mai 1979\n"))
    assert {p: p.stat().st_mtime_ns for p in files.rglob("*") if p.is_file()} == before
    assert not {path.name for path in files.iterdir()} & {"x", "x.png", "runs"}


NASTY = ("", "nan", "-inf", "-1", "1e999", "9" * 40, "1,2", "x\nä", "{None}", "--")


def test_no_value_of_any_option_ends_in_a_traceback(encdec, tmp_path: Path, monkeypatch) -> None:
    """With a run or a corpus that is missing, a command is refused whatever the values are."""
    monkeypatch.chdir(tmp_path)
    pairs = [(command, name) for command, name, _ in options_of_all_commands(monkeypatch)]
    assert len(pairs) > 120
    for number, (command, option) in enumerate(pairs):
        nowhere = ["--tsv", "nowhere", "--run", "x"] if command == "train" else ["nowhere"]
        value = NASTY[number % len(NASTY)]
        if command in ("doctor", "prepare"):
            continue
        found = encdec(command, *nowhere, f"--{option}={value}")
        assert (found.code, found.out) == (2, ""), (command, option, value, found)
        assert len(found.err.splitlines()) == 1, (command, option, value, found)
        for word in ("Traceback", "invalid literal", "could not convert", "NoneType"):
            assert word not in found.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beam", "x"], "--beam 'x' cannot be used: it must be a whole number"),
        (["--stop", "nevr"], "--stop 'nevr' cannot be used: it must be one of first, heuristic"),
        (["--layer", "x"], "--layer 'x' cannot be used: it must be a whole number"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_errors_are_the_same_whatever_the_terminal_can_show(
    arguments: list[str], message: str, encoding: str, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(InputError) as caught:
        translate.run(["nowhere", *arguments])
    assert str(caught.value).startswith(message)
