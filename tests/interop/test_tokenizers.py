"""Tokenizers of the hub library, and the vocabularies that are read from their files."""

import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from encdec.data import vocabulary
from encdec.data.pretrained_vocabulary import PretrainedVocabulary
from encdec.interop.names import Fields
from encdec.interop.tokenizers import read_vocabularies
from tests.interop.hub_tokenizers import CONFIGS, MAKERS, lines

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
    rows = [draw.choices(range(known), k=draw.randint(0, 12)) for _ in range(1000)]
    rows += [list(ids) for ids in tokenizer(text_target=TEXTS).input_ids]
    if name == "marian":  # whose languages are not special in the hub library
        rows = [[i for i in ids if i not in source.language_ids.values()] for ids in rows]
    theirs = [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
    assert [target.decode(ids) for ids in rows] == theirs
    if name != "marian-two-vocabularies":  # of which the hub library can decode the target only
        assert [source.decode(ids) for ids in rows] == theirs


@pytest.mark.parametrize("name", MAKERS)
def test_vocabularies_can_be_saved(name: str, made: Any, tmp_path: Path) -> None:
    _, folder = made(name)
    for side in read(name, folder / "saved"):
        vocabulary.save(side, tmp_path / "vocabulary.json")
        again = vocabulary.load(tmp_path / "vocabulary.json")
        assert again == side
        assert again.encode_all(TEXTS[:50]) == side.encode_all(TEXTS[:50])
        # Models have more rows than their tokenizers have ids.
        assert len(again.tokens(range(side.size))) == side.size
        assert isinstance(again.decode(range(side.size)), str)
