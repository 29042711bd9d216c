"""Tokenizers of the hub library, and the vocabularies that are read from their files."""

import json
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from encdec.data import vocabulary
from encdec.data.pretrained_vocabulary import PretrainedVocabulary
from encdec.interop.export import token_names
from encdec.interop.names import Fields
from encdec.interop.tokenizer_files import tokenizer_files
from encdec.interop.tokenizers import read_vocabularies
from encdec.types import InputError
from tests.interop.hub_tokenizers import CONFIGS, MAKERS, lines, t5_model, train, write

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
TEXTS = ["", " ", "\t\n", *lines(2000, 7)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function from the name of a tokenizer to it and the folder that the hub library saved."""

    @cache
    def make(name: str) -> tuple[Any, Path]:
        folder = tmp_path_factory.mktemp(name)
        tokenizer = MAKERS[name](folder / "files")
        tokenizer.save_pretrained(folder / "saved")
        return tokenizer, folder

    return make


def fields(name: str, size: int) -> Fields:
    return Fields({"vocab_size": size, **CONFIGS[name]}, "config.json")


def read(name: str, folder: Path, size: int = 512) -> tuple[Any, Any]:
    return read_vocabularies(folder, fields(name, size))


def framed(side: PretrainedVocabulary, texts: list[str]) -> list[list[int]]:
    return [[*ids, side.specials.end] for ids in side.encode_all(texts)]


@pytest.mark.parametrize("name", MAKERS)
def test_ids_are_those_of_the_hub(name: str, made: Any) -> None:
    tokenizer, folder = made(name)
    source, target = read(name, folder / "saved")
    assert framed(source, TEXTS) == tokenizer(TEXTS).input_ids
    theirs = tokenizer(text_target=TEXTS).input_ids
    if name in ("mbart", "nllb-legacy"):
        # Its labels are turned around before the decoder reads them, so that it starts with the
        # language; in the legacy order the decoder was made to continue with it.
        theirs = [ids[:-1] for ids in theirs]
        first = target.specials.start if name == "mbart" else target.before[0]
        assert first == tokenizer.convert_tokens_to_ids(tokenizer.tgt_lang)
        if name == "nllb-legacy":
            theirs = [[first, *ids] for ids in theirs]
    assert framed(target, TEXTS) == theirs


@pytest.mark.parametrize("name", MAKERS)
def test_decoded_text_is_that_of_the_hub(name: str, made: Any) -> None:
    tokenizer, folder = made(name)
    source, target = read(name, folder / "saved")
    draw = random.Random(3)
    known = max(tokenizer.get_vocab().values()) + 1
    rows = [draw.choices(range(known), k=draw.randint(0, 12)) for _ in range(400)]
    rows += [list(ids) for ids in tokenizer(text_target=TEXTS[:400]).input_ids]
    if name == "marian":  # whose languages are not special in the hub library
        rows = [[i for i in ids if i not in source.language_ids.values()] for ids in rows]
    theirs = [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
    assert [target.decode(ids) for ids in rows] == theirs
    if name != "marian-two-vocabularies":  # of which the hub library can decode the target only
        assert [source.decode(ids) for ids in rows] == theirs


@pytest.mark.parametrize(
    "name", [n for n in MAKERS if n not in ("byt5", "marian-two-vocabularies")]
)
def test_exported_tokens_are_named_as_the_hub_names_them(name: str, made: Any) -> None:
    # Of ByT5 no other format has bytes as tokens; of two vocabularies the hub library names one.
    tokenizer, folder = made(name)
    src, _ = read(name, folder / "saved")
    names = token_names(src, folder, "source")
    for text in TEXTS[3:40]:
        ids = src.encode(text)
        assert [names[i] for i in ids] == tokenizer.convert_ids_to_tokens(ids)


@pytest.mark.parametrize("name", MAKERS)
def test_vocabularies_can_be_saved(name: str, made: Any, tmp_path: Path) -> None:
    _, folder = made(name)
    for side in read(name, folder / "saved"):
        vocabulary.save(side, tmp_path / "vocabulary.json")
        again = vocabulary.load(tmp_path / "vocabulary.json", vocabulary.digest(side))
        assert again == side
        assert again.encode_all(TEXTS[:50]) == side.encode_all(TEXTS[:50])
        # Models have more rows than their tokenizers have ids.
        assert len(again.tokens(range(side.size))) == side.size
        assert isinstance(again.decode(range(side.size)), str)


@pytest.mark.parametrize("name", ["marian", "marian-two-vocabularies", "m2m100", "bart"])
def test_files_that_the_hub_did_not_save(name: str, made: Any) -> None:
    """As they are published: without tokens and ids in the settings."""
    tokenizer, folder = made(name)
    languages = ("en", "fr") if name == "m2m100" else (None, None)
    source, target = read_vocabularies(folder / "files", fields(name, 512), *languages)
    # Published BART takes the space before a mask into it; this version of the hub library does
    # not where there is no tokenizer.json.
    texts = [text for text in TEXTS[:500] if "<mask>" not in text]
    assert framed(source, texts) == tokenizer(texts).input_ids
    assert framed(target, texts) == tokenizer(text_target=texts).input_ids


@pytest.mark.parametrize(
    ("kind", "model", "offset", "unknown"),
    [
        ("T5Tokenizer", "t5", 0, 2),
        ("PegasusTokenizer", "pegasus", 103, 105),
        ("MBartTokenizer", "mbart", 1, 3),
        ("MBart50Tokenizer", "mbart", 1, 3),
        ("NllbTokenizer", "m2m_100", 1, 3),
    ],
)
def test_a_sentencepiece_model_and_no_tokenizer_json(
    kind: str, model: str, offset: int, unknown: int, tmp_path: Path
) -> None:
    proto = t5_model() if model in ("t5", "pegasus") else train()
    write(tmp_path, spiece__model=proto, sentencepiece__bpe__model=proto)
    codes = "eng_Latn fra_Latn" if model == "m2m_100" else "en_XX ro_RO"
    names = {"tokenizer_class": kind} | dict(
        zip(("src_lang", "tgt_lang"), codes.split(), strict=True)
    )
    write(tmp_path, tokenizer_config__json=names)
    values = {"model_type": model, "vocab_size": 700}
    source, target = read_vocabularies(tmp_path, Fields(values, "config.json"))
    reference = sentencepiece.SentencePieceProcessor(model_proto=proto)
    texts = [text for text in TEXTS if "<" not in text and "_" not in text]
    rows = [[i + offset for i in ids] for ids in reference.encode(texts)]
    rows = [[unknown if i == reference.unk_id() + offset else i for i in ids] for ids in rows]
    before, after = len(source.before), len(source.after)
    encoded = source.encode_all(texts)
    assert [ids[before : len(ids) - after] for ids in encoded] == rows
    known = [ids for ids in rows if unknown not in ids]
    texts = [reference.decode([i - offset for i in ids]).strip() for ids in known]
    assert [target.decode(ids) for ids in known] == texts
    if source.languages:
        first = reference.get_piece_size() + 1
        assert source.language_ids[source.languages[0]] == first
        assert source.pieces.id_of("<mask>") == first + len(source.languages)
        assert len(source.languages) == {"MBartTokenizer": 25, "MBart50Tokenizer": 52}.get(
            kind, 202
        )


def test_the_hub_masks_spans_with_the_same_ids(made: Any) -> None:
    tokenizer, _ = made("t5")
    folder = made("t5")[1] / "files"
    source, _ = read_vocabularies(folder, fields("t5", 512))
    assert source.pieces.id_of("<extra_id_0>") == tokenizer.convert_tokens_to_ids("<extra_id_0>")


@pytest.mark.parametrize("name", ["marian", "t5", "bart", "byt5"])
def test_white_space_before_punctuation(name: str, made: Any, tmp_path: Path) -> None:
    """Taken away where the settings say so; not by byte pairs."""
    tokenizer, _ = made(name)
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write(tmp_path, tokenizer_config__json=config | {"clean_up_tokenization_spaces": True})
    _, target = read(name, tmp_path)
    texts = ["a .b", "we 've", "a ' b", "do n't ! , ?", "the 're 's 'm"]
    ids = [[i for i in row if i != target.specials.unknown] for row in target.encode_all(texts)]
    theirs = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    tokenizer.clean_up_tokenization_spaces = False
    assert [target.decode(row) for row in ids] == theirs


def test_punctuation_is_normalized_on_request(made: Any) -> None:
    tokenizer, folder = made("marian")
    source, _ = read_vocabularies(
        folder / "saved", fields("marian", 512), normalize_punctuation=True
    )
    normalized = [tokenizer.normalize(text) for text in TEXTS]
    assert framed(source, TEXTS) == tokenizer(normalized).input_ids
    assert normalized != TEXTS


def test_another_language(made: Any) -> None:
    for name, code in (("nllb", "deu_Latn"), ("m2m100", "de"), ("mbart50", "de_DE")):
        tokenizer, folder = made(name)
        source, target = read(name, folder / "saved")
        assert code in source.languages
        languages = tokenizer.src_lang, tokenizer.tgt_lang
        tokenizer.src_lang = tokenizer.tgt_lang = code
        assert framed(source.with_language(code), TEXTS[:99]) == tokenizer(TEXTS[:99]).input_ids
        theirs = tokenizer(text_target=TEXTS[:99]).input_ids
        assert framed(target.with_language(code), TEXTS[:99]) == theirs
        tokenizer.src_lang, tokenizer.tgt_lang = languages


def test_a_language_that_marian_is_told(made: Any) -> None:
    """Comes before a text, unless the text names one itself."""
    tokenizer, folder = made("marian")
    source, target = read_vocabularies(
        folder / "saved", fields("marian", 512), target_language="deu"
    )
    assert (source.languages, target.languages) == (("fra", "deu", "spa"), ())
    assert (
        framed(source, ["abc", ">>spa<< abc"]) == tokenizer([">>deu<<abc", ">>spa<< abc"]).input_ids
    )


def changed(folder: Path, copy: Path, **files: Any) -> Path:
    """A copy of a folder in which files are replaced, or left out where they are None."""
    shutil.copytree(folder, copy)
    for name, content in files.items():
        if content is None:
            (copy / name.replace("__", ".")).unlink(missing_ok=True)
        else:
            write(copy, **{name: content})
    return copy


@pytest.mark.parametrize(
    ("name", "files", "error"),
    [
        ("marian", {"source__spm": None}, "source.spm cannot be read: .* tokenizer's files too"),
        ("marian", {"vocab__json": None}, "vocab.json cannot be read: .* tokenizer's files too"),
        ("marian", {"target__spm": b"no"}, "target.spm is damaged"),
        ("marian", {"vocab__json": b"{"}, "vocab.json is damaged"),
        ("marian", {"vocab__json": {"a": "b"}}, "vocab.json is damaged"),
        ("marian", {"vocab__json": {"a": 0}}, ": vocab.json has no <unk>"),
        ("marian", {"vocab__json": {"<unk>": -1}}, "vocab.json is damaged"),
        ("marian", {"source__spm": b""}, "source.spm is damaged"),
        (
            "marian",
            {"vocab__json": {"</s>": 0, "<unk>": 900, "<pad>": 1}, "tokenizer_config__json": {}},
            "does not belong to the model: the id 900 is not below",
        ),
        ("marian", {"tokenizer_config__json": b"[]"}, "tokenizer_config.json is damaged"),
        ("marian", {"tokenizer_config__json": {"added_tokens_decoder": {"1": 2}}}, "is damaged"),
        ("t5", {"tokenizer__json": b"{}"}, "tokenizer.json is damaged"),
        ("t5", {"tokenizer__json": b"\xff"}, "tokenizer.json is damaged"),
        ("t5", {"tokenizer__json": None, "spiece__model": None}, "spiece.model cannot be read"),
        (
            "nllb",
            {"tokenizer__json": None, "sentencepiece__bpe__model": None},
            "sentencepiece.bpe.model cannot be read",
        ),
    ],
)
def test_missing_and_damaged_files(
    name: str, files: dict[str, Any], error: str, made: Any, tmp_path: Path
) -> None:
    folder = changed(made(name)[1] / "saved", tmp_path / "copy", **files)
    with pytest.raises(InputError, match=error):
        read(name, folder)


@pytest.mark.parametrize(
    ("name", "languages", "error"),
    [
        ("t5", ("en", None), "--source-language cannot be used: .* has no languages"),
        ("bart", (None, "fr"), "--target-language cannot be used: .* has no languages"),
        ("marian", ("eng", None), "--source-language cannot be used: .* of the target only"),
        ("marian", (None, "fr"), "--target-language: .* know the language 'fr'; did you mean fra?"),
        ("nllb", (None, "french"), "--target-language: .*'french'.* it knows ace_Arab, .* more"),
        ("m2m100", ("english", None), "--source-language: .*'english'"),
    ],
)
def test_languages_that_cannot_be_used(
    name: str, languages: tuple[str | None, str | None], error: str, made: Any
) -> None:
    with pytest.raises(InputError, match=error):
        read_vocabularies(made(name)[1] / "saved", fields(name, 700), *languages)


def test_decoding_starts_as_generation_says(made: Any, tmp_path: Path) -> None:
    """The hub library's `generate` reads generation_config.json, and training config.json."""
    copy = changed(made("t5")[1] / "saved", tmp_path / "t5")
    values = {**fields("t5", 500).values, "decoder_start_token_id": 7}
    assert read_vocabularies(copy, Fields(values, "c"))[1].specials.start == 7
    write(copy, generation_config__json={"decoder_start_token_id": 9})
    assert read_vocabularies(copy, Fields(values, "c"))[1].specials.start == 9


@pytest.mark.parametrize("name", ["pad_token_id", "eos_token_id", "decoder_start_token_id"])
def test_special_ids_that_cannot_be_used(name: str, made: Any) -> None:
    folder = made("t5")[1] / "saved"
    for value, error in (
        ("0", f"^config.json: {name} = '0' cannot be used: it must be of type int"),
        (-1, f"^config.json: {name} = -1 cannot be used: it must be from 0 to 499"),
        (500, f"^config.json: {name} = 500 cannot be used: it must be from 0 to 499"),
    ):
        values = {**fields("t5", 500).values, name: value}
        with pytest.raises(InputError, match=error):
            read_vocabularies(folder, Fields(values, "config.json"))


def test_the_target_language_is_that_of_the_model(made: Any, tmp_path: Path) -> None:
    """As the model is made to begin with; if nothing says so, it has to be given."""
    for name, field in (("mbart50", "forced_bos_token_id"), ("mbart", "decoder_start_token_id")):
        tokenizer, folder = made(name)
        config = json.loads((folder / "saved" / "tokenizer_config.json").read_text())
        del config["tgt_lang"]
        copy = changed(folder / "saved", tmp_path / name, tokenizer_config__json=config)
        with pytest.raises(InputError, match="languages: give --target-language"):
            read(name, copy)
        language = tokenizer.convert_tokens_to_ids("de_DE")
        values = {**fields(name, 512).values, field: language}
        _, target = read_vocabularies(copy, Fields(values, "config.json"))
        assert target == read_vocabularies(copy, fields(name, 512), None, "de_DE")[1]
        write(copy, generation_config__json={field: language})
        assert read(name, copy)[1] == target


def test_class_names_of_other_versions(made: Any, tmp_path: Path) -> None:
    """Without a class, or with that of any tokenizer, the kind of model and the files decide."""
    for name in MAKERS:
        folder = made(name)[1] / "saved"
        config = json.loads((folder / "tokenizer_config.json").read_text())
        kind = config.pop("tokenizer_class")
        for other in ({}, {"tokenizer_class": f"{kind}Fast"}, {"tokenizer_class": "Any"}):
            copy = tmp_path / name / str(other)
            changed(folder, copy, tokenizer_config__json=config | other)
            assert read(name, copy) == read(name, folder)


def test_the_files_that_belong_to_a_tokenizer(made: Any) -> None:
    for name in MAKERS:
        folder = made(name)[1] / "saved"
        assert {*tokenizer_files(folder)} == {*folder.iterdir()}


def test_settings_that_give_tokens_their_ids(tmp_path: Path) -> None:
    """Some list all added tokens with ids, or name special tokens in an object."""
    languages = {str(500 + i): {"content": code} for i, code in enumerate(("fra_Latn", "eng_Latn"))}
    settings = {"tokenizer_class": "NllbTokenizer", "src_lang": "eng_Latn", "tgt_lang": "fra_Latn"}
    settings |= {"extra_special_tokens": {"image_token": "<image>"}, "unk_token": "<unk>"}
    settings |= {
        "added_tokens_decoder": languages | {"650": {"content": "<word>", "special": False}}
    }
    write(tmp_path, sentencepiece__bpe__model=train(), tokenizer_config__json=settings)
    values = {"model_type": "m2m_100", "vocab_size": 700}
    source, target = read_vocabularies(tmp_path, Fields(values, "config.json"))
    assert (source.before, target.before) == ((501,), (500,))
    image = source.pieces.id_of("<image>")
    assert source.encode("<image><word>") == [501, image, 650]
    assert source.decode([501, image, 650]) == "<word>"
