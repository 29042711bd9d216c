"""Run folders: what is written is read again, and what is damaged is named."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from encdec import config as configs
from encdec.config import DataConfig, RunConfig, TrainingConfig
from encdec.data import vocabulary
from encdec.data.sources import Pairs
from encdec.data.text import PreprocessedVocabulary, Preprocessing
from encdec.runs import config_file
from encdec.runs import run as runs
from encdec.runs.run import Run
from encdec.types import InputError
from tests.small_run import small_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return small_run(tmp_path_factory.mktemp("runs") / "dates")


@pytest.fixture
def copy(made: Run, tmp_path: Path) -> Path:
    for file in made.path.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_what_is_written_is_read_again(made: Run) -> None:
    loaded = runs.load(str(made.path))
    assert (loaded.config, loaded.corpus, loaded.extra_length, loaded.held_out) == (
        *(made.config, made.corpus, made.extra_length, made.held_out),
    )
    for side in ("src_vocabulary", "tgt_vocabulary"):
        text = made.held_out.src[0]
        assert getattr(loaded, side).encode(text) == getattr(made, side).encode(text)


def test_text_is_preprocessed_as_the_settings_say(made: Run, tmp_path: Path) -> None:
    held_out = Pairs(["L'Été\u2028 Étudié,\x85 Mr. X!", ""], ["UNE ﬁn", " "])
    how = {"lowercase": True, "normalization": "nfkc", "tokenizer": "moses"}
    data = DataConfig(**how, source_language="fr", vocabulary="words")
    french, english = (Preprocessing("nfkc", "moses", True, code) for code in ("fr", "en"))
    plain = vocabulary.build("words", map(french.preprocess, held_out.src), None)
    config = RunConfig(data=data)
    both = PreprocessedVocabulary(plain, french), PreprocessedVocabulary(plain, english)
    runs.create(Run(tmp_path / "run", config, "0" * 64, 10, *both, held_out))
    loaded = runs.load(tmp_path / "run")
    assert (loaded.src_vocabulary, loaded.tgt_vocabulary) == both
    assert loaded.held_out == held_out  # only a newline ends a line of the file
    assert runs.preprocessings(data) == (french, english)
    ids = loaded.src_vocabulary.encode("L'ÉTÉ, X")
    assert loaded.src_vocabulary.tokens(ids) == ["l'", "été", ",", "x"]
    assert loaded.tgt_vocabulary.decode(ids) == "l' été, x"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", "config.json is not the config.json of a run"),
        (
            "config.json",
            '{"model_type": "marian"}',
            "of a run, but of a model that the hub library saved: `encdec import .* --run ANOTHER`",
        ),
        ("config.json", '{"format": 99}', "run format 99, .* a newer encdec may open it"),
        ("config.json", '{"format": 1}', "run format 1, .* opens format 3: encdec 0.1 opens it"),
        (
            "config.json",
            '{"format": 3, "corpus": ""}',
            "damaged: config, extra_length, init, vocabularies missing",
        ),
        ("heldout.jsonl", '["one"', "heldout.jsonl is damaged"),
        ("heldout.jsonl", '["one"]\n', "heldout.jsonl is damaged"),
        ("source.vocab", "nonsense", "source.vocab"),
        ("target.vocab", None, "target.vocab cannot be read"),
    ],
)
def test_damage_is_named(copy: Path, file: str, text: str | None, message: str) -> None:
    (copy / file).unlink()
    if text is not None:
        (copy / file).write_text(text)
    with pytest.raises(InputError, match=message):
        runs.load(copy)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_change_by_hand_is_named(copy: Path) -> None:
    edit(copy / "config.json", '"activation": "relu"', '"activation": "gelu"')
    for read in (runs.load, runs.read_config):
        with pytest.raises(InputError, match=r"config\.json has been changed"):
            read(copy)
    edit(copy / "config.json", '"activation": "gelu"', '"activation": "relu"')
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config))  # only its layout is another
    loaded = runs.load(copy)
    lines = (copy / "heldout.jsonl").read_text().splitlines(keepends=True)
    (copy / "heldout.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"heldout\.jsonl has been changed"):
        runs.load(copy)
    (copy / "heldout.jsonl").write_text("".join(lines))
    runs.update(loaded, replace(loaded.config, training=TrainingConfig(max_steps=9)))
    runs.load(copy)
    del config["checksums"]  # as of a run of an earlier version
    config["config"]["model"]["activation"] = "gelu"
    (copy / "config.json").write_text(json.dumps(config))
    assert runs.load(copy).config.model.activation == "gelu"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("config", value) for value in (None, [], {"model": None}, {"data": 3}, {"seed": "1"})),
        *(("vocabularies", value) for value in (None, [], {})),
        ("extra_length", "3"),
        ("corpus", 3),
        ("checksums", None),
        ("checksums", {"config.json": 3}),
    ],
)
def test_a_value_of_another_type_is_refused(copy: Path, name: str, value: object) -> None:
    tree = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(tree | {name: value}))
    with pytest.raises(InputError):
        runs.load(copy)


def test_a_field_of_another_version_is_named(copy: Path) -> None:
    tree = json.loads((copy / "config.json").read_text())
    tree["config"]["model"]["widths"] = 3
    (copy / "config.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"unknown field model\.widths; did you mean width"):
        runs.load(copy)


def test_only_the_steps_of_a_run_may_change(made: Run) -> None:
    def wanted(**changes: object):
        return replace(made.config, training=replace(made.config.training, **changes))

    runs.check_same(made, made.config, made.corpus)
    runs.check_same(made, wanted(max_steps=9), made.corpus)
    with pytest.raises(InputError, match=r"clip_norm = 1.0, not 2.0: .*--resume .*--run"):
        runs.check_same(made, wanted(clip_norm=2.0), made.corpus)
    with pytest.raises(InputError, match="was trained on another corpus"):
        runs.check_same(made, made.config, "1" * 64)
    moved = replace(made.config, data=replace(made.config.data, tsv=("elsewhere.tsv",)))
    runs.check_same(made, moved, made.corpus)
    with pytest.raises(InputError, match="was trained on another corpus"):
        runs.check_same(made, moved, "1" * 64)
    cosine = replace(made, config=wanted(schedule="cosine"))
    longer = TrainingConfig(max_steps=2, schedule="cosine")
    with pytest.raises(
        InputError, match=r"cannot become 2: its schedule ends at 1\. .*--init-from"
    ):
        runs.check_same(cosine, replace(made.config, training=longer), made.corpus)


def test_each_number_in_the_settings_is_compared(made: Run) -> None:
    """One setting's name must not hide another's: the search has a seed too."""
    compared = []
    for path, value in numbers(configs.to_json(made.config)):
        tree = configs.to_json(made.config)
        place = tree
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value + 1
        try:
            wanted = configs.from_json(tree)
        except InputError:  # it cannot be one more
            continue
        if path[-1] == "max_steps":
            continue
        name = ".".join(path) if path[0] == "search" else path[-1]
        with pytest.raises(InputError, match=rf"with {name} = {value!r}, not {value + 1!r}: "):
            runs.check_same(made, wanted, made.corpus)
        compared.append(".".join(path))
    assert {"seed", "search.seed", "data.batch_tokens", "model.layers"} <= {*compared}


def numbers(tree: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], int | float]]:
    """The place and the value of each number."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from (((name, *path), number) for path, number in numbers(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (name,), value


def test_more_steps_are_recorded(copy: Path) -> None:
    run = runs.load(copy)
    training = replace(run.config.training, max_steps=7)
    runs.update(run, replace(run.config, training=training))
    assert runs.load(copy).config.training.max_steps == 7
    assert not list(copy.glob("*.tmp"))


def test_what_a_kill_left_of_a_new_folder_is_begun_again(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    run = replace(made, path=tmp_path / "run")
    assert runs.is_vacant(run.path)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_write_config", stop)
        with pytest.raises(KeyboardInterrupt):
            runs.create(run)
    (run.path / "config.json.01234567.tmp").touch()
    assert runs.is_vacant(run.path)
    assert not runs.is_run(run.path)
    runs.create(run)
    assert runs.load(run.path).held_out == made.held_out
    assert not runs.is_vacant(run.path)


def test_what_a_person_has_there_is_not_vacant(tmp_path: Path) -> None:
    assert runs.is_vacant(tmp_path)
    (tmp_path / "source.vocab").touch()
    (tmp_path / "precious").touch()
    assert not runs.is_vacant(tmp_path)
    assert not runs.is_vacant(tmp_path / "precious")


def test_a_vocabulary_of_another_run_is_refused(copy: Path) -> None:
    """It has as many tokens, so the model could be run with it, and would talk nonsense."""
    path = copy / "target.vocab"
    tree = json.loads(path.read_text())
    tree["table"] = tree["table"][::-1]
    path.write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"target\.vocab .* does not belong to this run"):
        runs.load(copy)


def test_a_damaged_model_of_sentencepiece_does_not_reach_its_library(
    tmp_path: Path, monkeypatch
) -> None:
    """Release 0.2.1 ends the process on these bytes."""
    path = small_run(tmp_path / "run", kind="sentencepiece").path / "source.vocab"
    tree = json.loads(path.read_text())
    middle = len(tree["model"]) // 2
    tree["model"] = f"{tree['model'][:middle]}ZZZZ{tree['model'][middle + 4 :]}"
    path.write_text(json.dumps(tree))
    monkeypatch.setattr("encdec.data.vocabulary.SentencePieceVocabulary", pytest.fail)
    with pytest.raises(InputError, match=r"source\.vocab is damaged or does not belong"):
        runs.load(tmp_path / "run")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run folder .* cannot be used: File name too long"):
        runs.check_folder(tmp_path / ("a" * 300))


def test_settings_that_cannot_be_read_are_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        config_file.read(tmp_path)
