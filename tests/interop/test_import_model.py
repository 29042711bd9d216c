"""A model of the hub library becomes a run: its texts, its settings, its files, its refusals."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import encdec
from encdec.cli.main import main
from encdec.interop import hub
from encdec.interop.array_files import stored_arrays
from encdec.interop.import_model import import_model
from encdec.parallel.layout import Layout
from encdec.runs import checkpoints
from encdec.runs import run as runs
from encdec.runs.parameters import abstract_params
from encdec.types import InputError
from tests.interop.hub_models import make, save, torch
from tests.interop.hub_tokenizers import MAKERS, lines

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TEXTS = [text[:20] for text in lines(24, seed=5, rare=0.02)]
MODELS = {
    "marian": "marian",
    "marian-two-vocabularies": "marian-two-vocabularies",
    "m2m100": "m2m100",
    "nllb": "m2m100",
    "mbart": "mbart",
    "mbart50": "mbart",
    "bart": "bart",
    "pegasus": "pegasus",
    "t5": "t5-untied",
    "mt5": "mt5",
    "umt5": "umt5",
    "byt5": "t5",
}
"""The model for each tokenizer."""


def whole(kind: str, folder: Path, **changes: Any) -> tuple[Any, Any]:
    """A model with its tokenizer, as the hub library saves both in a folder.

    `changes` are further fields of its config.json.
    """
    tokenizer = MAKERS[kind](folder / "files")
    tokenizer.save_pretrained(folder)
    size = max(tokenizer.get_vocab().values(), default=0) + 1
    settings: dict[str, Any] = {
        "vocab_size": max(size, len(tokenizer)) + (0 if "marian" in kind else 3),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    start = tokenizer.pad_token_id
    if kind in ("m2m100", "nllb", "mbart50", "bart"):
        start = tokenizer.eos_token_id
    if kind == "mbart":
        start = tokenizer.convert_tokens_to_ids("ro_RO")
    if kind == "marian-two-vocabularies":
        settings["decoder_vocab_size"] = settings["vocab_size"]
    model = make(MODELS[kind], **settings | changes, decoder_start_token_id=start)
    generation = {
        "num_beams": 3,
        "max_length": 12,
        "decoder_start_token_id": start,
        "early_stopping": True,
    }
    if "marian" in kind:
        generation["bad_words_ids"] = [[tokenizer.pad_token_id]]
    if kind == "bart":
        generation |= {"forced_bos_token_id": 0, "no_repeat_ngram_size": 2}
    if kind in ("m2m100", "nllb", "mbart50"):
        language = {"m2m100": "__fr__", "nllb": "fra_Latn", "mbart50": "sl_SI"}[kind]
        generation["forced_bos_token_id"] = tokenizer.convert_tokens_to_ids(language)
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    save(model, folder)
    return model, tokenizer


def theirs(model: Any, tokenizer: Any, texts: list[str]) -> list[str]:
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        found = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return [tokenizer.decode(row, skip_special_tokens=True) for row in found]


@pytest.mark.parametrize("kind", MODELS)
def test_texts_become_the_texts_of_the_hub_library(kind: str, tmp_path: Path) -> None:
    model, tokenizer = whole(kind, tmp_path / "model")
    imported = import_model(tmp_path / "model", tmp_path / "run")
    texts = [text for text in TEXTS if text.strip()]
    ours = encdec.load(imported.path).translate(texts)
    expected = theirs(model, tokenizer, texts)
    assert [translation.text for translation in ours] == expected
    assert any(expected)


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marian") / "model"
    whole("marian", folder)
    return folder


def test_a_run_holds_all_that_translating_needs(
    marian: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(marian, tmp_path / "model")
    main(["import", str(tmp_path / "model"), "--run", str(tmp_path / "run")])
    assert "parameters\ntry: echo" in capsys.readouterr().out
    expected = encdec.load(tmp_path / "run").translate(TEXTS)
    shutil.rmtree(tmp_path / "model")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert [one.text for one in encdec.load(moved).translate(TEXTS)] == [t.text for t in expected]
    run = runs.load(moved)
    assert (run.config.search.beam, run.config.search.length_penalty_kind) == (3, "mean")
    assert run.config.search.ban_special
    names = {file.name for file in (moved / "original").iterdir()}
    assert {"config.json", "generation_config.json", "vocab.json", "source.spm"} <= names
    assert checkpoints.steps(moved, "best") == [0]
    (tmp_path / "text").write_text("".join(f"{text}\n" for text in TEXTS[:5]))
    main(["translate", str(moved), "--input", str(tmp_path / "text"), "--beam", "2"])
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_languages_are_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = whole("nllb", tmp_path / "model")
    run = import_model(tmp_path / "model", tmp_path / "run", target_language="deu_Latn").path
    translator = encdec.load(run)
    languages = (("eng_Latn", "deu_Latn"), ("fra_Latn", "zho_Hans"))
    for source, target in languages:
        tokenizer.src_lang = source
        model.generation_config.forced_bos_token_id = tokenizer.convert_tokens_to_ids(target)
        chosen = translator.with_languages(source, target)
        texts = [text for text in TEXTS if text.strip()]
        assert [t.text for t in chosen.translate(texts)] == theirs(model, tokenizer, texts)
    (tmp_path / "text").write_text("one\n")
    with pytest.raises(SystemExit):
        main(["translate", str(run), "--input", str(tmp_path / "text"), "--target-language", "xx"])
    message = capsys.readouterr().err
    assert "does not know the language 'xx'" in message
    assert "deu_Latn" in message or "ace_Arab" in message


def test_what_cannot_be_imported_is_refused_before_a_folder_is_made(
    marian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def refused(match: str, model: Path = marian, **how: Any) -> None:
        with pytest.raises(InputError, match=match):
            import_model(model, run, **how)
        assert not run.exists()

    refused("is not a folder: give one that the hub library saved", tmp_path / "none")
    refused("option|--target-language: the tokenizer does not know", target_language="xyz")
    refused("--source-language cannot be used", source_language="eng")
    missing = tmp_path / "missing"
    shutil.copytree(marian, missing)
    (missing / "source.spm").unlink()
    refused("source.spm", missing)
    monkeypatch.setattr("encdec.interop.import_model._PEAK", 1e9)
    refused("GiB of memory to be read", marian)
    monkeypatch.undo()
    import_model(marian, run)
    with pytest.raises(InputError, match="is there already: name another run folder"):
        import_model(marian, run)
    with pytest.raises(InputError, match="run is a run folder, which every command takes as it is"):
        import_model(run, tmp_path / "again")


def test_two_imports_into_one_folder_do_not_meet(
    marian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one, begun while the first reads the model, is refused, and the first ends."""
    run, read = tmp_path / "run", hub.read_params

    def meanwhile(opened: Any) -> Any:
        with pytest.raises(InputError, match=r"is being written by process \d+"):
            import_model(marian, run)
        return read(opened)

    monkeypatch.setattr(hub, "read_params", meanwhile)
    import_model(marian, run)
    assert encdec.load(run)("one").text is not None
    assert not (run / "lock").exists()


def test_an_import_that_fails_leaves_only_what_was_there(
    marian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "create", fail)
    for there in (False, True):
        if there:
            run.mkdir()
            (run / "original").mkdir()  # of a killed import
        with pytest.raises(KeyboardInterrupt):
            import_model(marian, run)
        assert run.exists() == there
    assert [*run.iterdir()] == []
    monkeypatch.undo()
    import_model(marian, run)


def test_halves_are_converted_and_it_is_said(marian: Path, tmp_path: Path) -> None:
    model = make("marian", **json.loads((marian / "config.json").read_text())).half()
    shutil.copytree(marian, tmp_path / "model")
    save(model, tmp_path / "model")
    said: list[str] = []
    run = import_model(tmp_path / "model", tmp_path / "run", say=said.append)
    assert any("arrays of float16 become float32" in line for line in said)
    params = encdec.load(run.path)._params
    array = stored_arrays(tmp_path / "model")["model.shared.weight"].read()
    np.testing.assert_array_equal(params["tgt_embedding"]["embedding"], array)


@pytest.mark.usefixtures("standard_promotion")
def test_it_is_fine_tuned_resumed_and_sharded_like_any_run(tmp_path: Path) -> None:
    """Killed after two of four steps, a run ends with the same parameters to the bit."""
    whole("nllb", tmp_path / "model", encoder_attention_heads=2, decoder_attention_heads=2)
    imported = import_model(tmp_path / "model", tmp_path / "run")
    pairs = [(text, text[::-1]) for text in lines(40, 6, rare=0) if text.strip()]
    config = imported.config
    data = replace(config.data, batch_tokens=256, num_buckets=1, target_language="deu_Latn")
    training = replace(
        config.training, max_steps=4, schedule="constant", warmup=1, evaluate_every=2
    )
    config = replace(config, data=data, training=training)
    straight = encdec.train(config, pairs, run=tmp_path / "straight", init=imported)
    short = replace(config, training=replace(training, max_steps=2))
    stopped = tmp_path / "stopped"
    encdec.train(short, pairs, run=stopped, init=imported)
    shutil.rmtree(imported.path)  # a run that was begun needs its origin no more
    resumed = encdec.train(
        replace(config, fine_tuning=runs.load(stopped).config.fine_tuning), pairs, run=stopped
    )
    assert (resumed.step, resumed.trained_steps) == (4, 2)
    latest = [
        checkpoints.load(run.run.path, "best", {"params": abstract_params(run.run)})[0]
        for run in (straight, resumed)
    ]
    jax.tree.map(np.testing.assert_array_equal, *latest)
    vocabulary = resumed.run.tgt_vocabulary
    assert vocabulary.tokens(vocabulary.before) == ["deu_Latn"]
    assert (resumed.run.path / "original" / "tokenizer.json").is_file()

    texts = [text for text, _ in pairs[:8]]
    expected = [one.text for one in resumed.translator.translate(texts)]
    split = encdec.load(stopped, Layout(2, 2))
    assert [one.text for one in split.translate(texts)] == expected


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an int
        yield


def test_attention_of_all_layers_and_heads_is_drawn(
    marian: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = import_model(marian, tmp_path / "run").path
    translator = encdec.load(run)
    translation = translator("abc def")
    maps = translator.attention(translation)
    assert maps.shape[:2] == (2 * 3, len(translation.tgt_ids))  # layers x heads
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    main(["attend", str(run), "abc def", "--out", str(tmp_path / "a.png"), "--maps", "encoder"])
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_name_on_the_hub_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)
    with pytest.raises(InputError, match=r"cannot be downloaded \(OSError\): check the name and"):
        import_model("Helsinki-NLP/opus-mt-en-de", tmp_path / "run")
