"""Tokenizers of models trained elsewhere: what needs no other library to compare with."""

import base64
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers

from encdec.data import vocabulary
from encdec.data.added_tokens import AddedToken
from encdec.data.pretrained_pieces import BytePieces, SentencePieceTable, TokenizerJson
from encdec.data.pretrained_vocabulary import PretrainedVocabulary
from encdec.types import InputError, SpecialIds

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "мама мыла раму"]
ADDED = (AddedToken("</s>", 0), AddedToken("<unk>", 1), AddedToken("<word>", 2, special=False))
LANGUAGES = {"fra": 3, "deu": 4}


def sentencepiece_table() -> SentencePieceTable:
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5), model_writer=proto, vocab_size=28, minloglevel=2
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())
    names = ["</s>", "<unk>", "<word>", ">>fra<<", ">>deu<<"]
    names += [model.id_to_piece(i) for i in range(3, model.get_piece_size())]
    table = {name: i for i, name in enumerate(names)}
    return SentencePieceTable(proto.getvalue(), table, 1, ADDED, reads_codes=True)


def tokenizer_json() -> TokenizerJson:
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    names = ["</s>", "<unk>", "<word>", "fra", "deu"]
    tokenizer.train_from_iterator(TEXTS, vocab_size=280, special_tokens=names, show_progress=False)
    return TokenizerJson(tokenizer.to_str())


PIECES = {
    "sentencepiece": sentencepiece_table,
    "tokenizers": tokenizer_json,
    "bytes": lambda: BytePieces(ADDED, 0),
}
SPECIALS = SpecialIds(pad=0, start=0, end=0, unknown=1)


@pytest.fixture(params=PIECES, scope="module")
def made(request: pytest.FixtureRequest) -> PretrainedVocabulary:
    return PretrainedVocabulary(PIECES[request.param](), 400, SPECIALS)


def with_languages(made: PretrainedVocabulary, place: Any) -> PretrainedVocabulary:
    return replace(made, language_place=place, language_ids=LANGUAGES)


def test_text_comes_back(made: PretrainedVocabulary) -> None:
    assert [made.decode(ids) for ids in made.encode_all(TEXTS)] == TEXTS
    assert made.encode_all(TEXTS) == [made.encode(text) for text in TEXTS]
    assert made.encode_all([]) == []
    assert made.encode("") == []
    assert made.decode(np.array(made.encode(TEXTS[0]))) == TEXTS[0]
    assert made.sample_segmentation([5, 6], 0.1, 9, np.random.default_rng(0)) == [5, 6]


def test_special_tokens_in_a_text_are_tokens(made: PretrainedVocabulary) -> None:
    assert made.encode("</s><unk>a<word>b")[:2] == [0, 1]
    assert made.decode(made.encode("</s><unk>a cat")).strip() == "a cat"


def test_a_lone_surrogate_is_a_question_mark(made: PretrainedVocabulary) -> None:
    assert made.encode("a\ud800b") == made.encode("a?b")


def test_ids_without_a_piece(made: PretrainedVocabulary) -> None:
    ids = made.encode("a cat")
    assert made.decode([*ids, 399]) == "a cat"
    assert made.tokens([399, 1]) == ["⁇", "⁇"]


def test_ids_above_the_embedding_are_unknown(made: PretrainedVocabulary) -> None:
    ids = made.encode("a cat")
    smaller = replace(made, size=max(ids))
    assert smaller.encode("a cat") == [i if i < max(ids) else 1 for i in ids]


def test_it_can_be_saved(made: PretrainedVocabulary, tmp_path: Path) -> None:
    made = replace(with_languages(made, "before"), before=(3,), after=(4,))
    vocabulary.save(made, tmp_path / "vocabulary.json")
    again = vocabulary.load(tmp_path / "vocabulary.json", vocabulary.digest(made))
    assert again == made
    assert again.encode_all(TEXTS) == made.encode_all(TEXTS)
    assert vocabulary.digest(again) == vocabulary.digest(made)


@pytest.mark.parametrize(
    "change",
    [
        {"pieces": {"kind": "other"}},
        {"pieces": {"kind": "tokenizers", "text": "{"}},
        {"pieces": {"kind": "tokenizers", "text": '{"model": 1}'}},
        {"pieces": {"kind": "bytes"}},
        {"specials": [1]},
        {"size": None},
    ],
)
def test_a_damaged_file(change: dict[str, Any], tmp_path: Path) -> None:
    made = PretrainedVocabulary(BytePieces(ADDED, 0), 300, SPECIALS)
    tree = {"format": "encdec vocabulary 1", **made.to_json(), **change}
    (tmp_path / "vocabulary.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match="copy the run folder again"):
        vocabulary.load(tmp_path / "vocabulary.json")


def test_a_damaged_sentencepiece_model(tmp_path: Path) -> None:
    made = PretrainedVocabulary(sentencepiece_table(), 400, SPECIALS)
    tree = made.to_json()
    tree["pieces"]["proto"] = base64.b64encode(b"not a model").decode()
    tree["format"] = "encdec vocabulary 1"
    (tmp_path / "vocabulary.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match="copy the run folder again"):
        vocabulary.load(tmp_path / "vocabulary.json")


def test_where_the_language_is(made: PretrainedVocabulary) -> None:
    bare = made.encode("a cat")
    before = with_languages(made, "before").with_language("deu")
    assert before.encode("a cat") == [4, *bare]
    assert before.with_language("fra").encode("a cat") == [3, *bare]
    assert before.decode([4, *bare, 0]) == made.decode(bare)
    start = with_languages(made, "start").with_language("deu")
    assert (start.encode("a cat"), start.specials.start) == (bare, 4)
    end = replace(with_languages(made, "end"), after=(0,)).with_language("deu")
    assert (end.encode("a cat"), end.specials.end) == ([*bare, 0], 4)
    assert end.decode([*bare, 0, 4]) == made.decode(bare)


def test_a_text_that_names_its_language() -> None:
    made = with_languages(PretrainedVocabulary(sentencepiece_table(), 400, SPECIALS), "default")
    assert made.languages == ("fra", "deu")
    german = made.with_language("deu")
    assert german.encode("a cat") == [4, *made.encode("a cat")]
    assert german.encode(">>fra<< a cat") == made.encode(">>fra<< a cat")
    assert made.encode(">>fra<< a cat") == [3, *made.encode("a cat")]


def test_an_unknown_language(made: PretrainedVocabulary) -> None:
    with pytest.raises(InputError, match=r"'fr'; did you mean fra\? it knows deu, fra$"):
        with_languages(made, "before").with_language("fr")
    with pytest.raises(InputError, match=r"does not know the language \['deu'\]"):
        with_languages(made, "before").with_language(["deu"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no languages"):
        made.with_language("fra")
    many = replace(made, language_place="before", language_ids={f"l{i}": i for i in range(30)})
    with pytest.raises(InputError, match=r"'xyz': it knows l0, .* and 18 more$"):
        many.with_language("xyz")


def test_labels() -> None:
    table, byte, json_ = (PIECES[name]() for name in ("sentencepiece", "bytes", "tokenizers"))
    assert table.label(3) == ">>fra<<"
    assert (byte.label(3 + ord("a")), byte.label(3 + 32), byte.label(0)) == ("a", "▁", "</s>")
    labels = [json_.label(i) for i in json_.encode_all([" cat"])[0]]
    assert "".join(label or "" for label in labels) == "▁cat"


def test_white_space_belongs_to_some_tokens() -> None:
    added = (AddedToken("</s>", 0), AddedToken("<m>", 1, strip_left=True, strip_right=True))
    pieces = BytePieces(added, 0)
    assert pieces.encode_all(["a <m> b", "a </s> b"]) == [[100, 1, 101], [100, 35, 0, 35, 101]]
    assert pieces.encode_all(["ab</s>"]) == [[100, 101]]  # the end token is put there anyway


def test_the_longest_token_is_found() -> None:
    pieces = BytePieces((AddedToken("<a>", 0), AddedToken("<a>b", 1)), 2)
    assert pieces.encode_all(["<a>b<a>"]) == [[1, 0]]


def test_it_can_be_sent_to_a_process(made: PretrainedVocabulary) -> None:
    ids = made.encode_all(TEXTS)
    assert pickle.loads(pickle.dumps(made)).encode_all(TEXTS) == ids
