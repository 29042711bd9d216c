"""`encdec train --init-from`: what is taken from the run, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from encdec.cli.train import parse_train
from encdec.config import DataConfig, Seq2SeqConfig
from encdec.runs import run as runs
from encdec.runs.run import Run
from encdec.types import InputError
from tests.small_run import SMALL, small_run


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return small_run(tmp_path_factory.mktemp("runs") / "origin")


def test_model_and_text_are_those_of_the_run(origin: Run) -> None:
    words = ["dates", "--init-from", str(origin.path), "--dropout", "0.3", "--max-steps", "7"]
    request = parse_train([*words, "--freeze", "encoder*", "*.bias"])
    assert request.init == request.config.fine_tuning.init_from == str(origin.path)
    assert request.config.fine_tuning.freeze == ("encoder*", "*.bias")
    model = request.config.model
    assert (model.width, model.heads, model.dropout) == (SMALL.width, SMALL.heads, 0.3)
    assert request.config.data.vocabulary == "chars"
    assert request.config.training.max_steps == 7
    assert parse_train([*words, f"--model={origin.config.model_name}"]).config.model == model
    other = parse_train(["dates", f"--init-from={origin.path}", "--lora-rank", "4"]).config
    assert other.fine_tuning.lora_rank == 4
    assert other.model == SMALL


def test_without_it_nothing_is_fine_tuned() -> None:
    request = parse_train(["--model", "seq2seq"])
    assert request.init is None
    assert isinstance(request.config.model, Seq2SeqConfig)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--width 16", r"width = 16 cannot be used: .* has width = 8; leave width out"),
        ("--norm pre", "norm = 'pre' cannot be used: .* has norm = 'post'"),
        ("--model seq2seq", "model = 'seq2seq' cannot be used: .* has model = 'transformer'"),
        ("--vocabulary bytes", "vocabulary = 'bytes' cannot be used: .* vocabulary = 'chars'"),
        ("--vocabulary-size 50", "vocabulary_size = 50 cannot be used: .* = None"),
        ("--freeze encoder* --lora-rank 8", "leave freeze out"),
        ("--lora-alpha 8", "lora_alpha needs lora_rank"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(origin: Run, words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_train(["--init-from", str(origin.path), *words.split()])


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        parse_train(["--init-from", str(tmp_path)])
    with pytest.raises(InputError, match="nowhere is not a folder"):
        parse_train(["--init-from", str(tmp_path / "nowhere")])


def test_a_run_on_a_corpus_needs_one_to_go_on_with(tmp_path: Path) -> None:
    run = replace(small_run(tmp_path / "dates"), path=tmp_path / "run")
    files = DataConfig(vocabulary="chars", tsv=("pairs.tsv",))
    runs.create(replace(run, config=replace(run.config, data=files)))
    with pytest.raises(InputError, match="name the corpus to fine-tune on"):
        parse_train(["--init-from", str(run.path)])
    words = ["--init-from", str(run.path), "--tsv", "other.tsv"]
    assert parse_train(words).config.data.tsv == (str(Path("other.tsv").absolute()),)
    with pytest.raises(InputError, match="preset tiny cannot be used with init_from"):
        parse_train(["tiny", *words])


def test_all_settings_but_the_corpus_are_those_of_the_run(tmp_path: Path) -> None:
    first = small_run(tmp_path / "first")
    data = replace(first.config.data, max_source_length=77, num_buckets=5, date_sentences=9)
    training = replace(first.config.training, label_smoothing=0.05, max_steps=123)
    search = replace(first.config.search, beam=3, no_repeat_ngram=2, force_end=True)
    config = replace(first.config, data=data, training=training, search=search)
    run = replace(first, path=tmp_path / "run", config=config)
    runs.create(run)
    config = parse_train(["--init-from", str(run.path), "--tsv", "other.tsv"]).config
    file = (str(Path("other.tsv").absolute()),)
    default = DataConfig().date_sentences
    assert config.data == replace(data, tsv=file, date_sentences=default)
    assert config.training == training
    assert config.search == search
