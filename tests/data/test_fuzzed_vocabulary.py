"""Damaged vocabulary files: a vocabulary that works, or one error."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from encdec.data import vocabulary
from encdec.data.vocabulary import Vocabulary
from tests.fuzzing import DEEP, json_file, refusal

TEXTS = ["one two three", "two four", "ä ö ü 1234"]
PIECES = {"kind": "bytes", "added": [["</s>", 1, False, False, True]], "end": 1, "clean_up": False}


@cache
def subwords() -> Vocabulary:
    """A trained model of SentencePiece."""
    return vocabulary.build("sentencepiece", TEXTS * 9, 22)


def tree(kind: str) -> dict[str, Any]:
    """The JSON values of a vocabulary file of this kind."""
    head = {"format": "encdec vocabulary 1"}
    if kind == "sentencepiece":
        return {**head, **subwords().to_json()}
    if kind == "ids":
        return {**head, "kind": "ids", "size": 20}
    if kind == "pretrained":
        ids = {"specials": [0, 0, 1, 2], "before": [259], "after": [1], "size": 300}
        languages = {"language_place": "before", "language_ids": {"en": 259, "de": 260}}
        return {**head, "kind": kind, "pieces": PIECES, **ids, **languages}
    made: Any = vocabulary.build(kind, TEXTS, None).to_json()  # type: ignore[arg-type]
    return json.loads(json.dumps({**head, **made}))


def use(read: Vocabulary) -> None:
    """Everything that the library asks of a vocabulary."""
    assert read.size < 2**31
    assert all(0 <= i < read.size for i in read.specials)
    last = str(read.size - 1)
    text = last if type(read).__name__ == "IdVocabulary" else "one ä \u2028"
    ids = read.encode(text)
    assert all(0 <= i < read.size for i in ids)
    assert isinstance(read.decode(ids), str)
    assert len(read.tokens(ids)) == len(ids) == len(read.words(ids, text))
    if read.size < 10_000:
        assert len(read.surfaces.each) == read.size
    vocabulary.digest(read)


@pytest.mark.parametrize("kind", ["chars", "words", "bytes", "ids", "pretrained"])
@given(st.data())
@example(None)
def test_a_damaged_file_is_refused_or_works(tmp_path: Path, kind: str, data: Any) -> None:
    path = tmp_path / "source.vocab"
    path.write_bytes(DEEP if data is None else data.draw(json_file(tree(kind))))
    said = refusal(lambda: vocabulary.load(path))
    if said is None:
        use(vocabulary.load(path))
    else:
        assert said.startswith(str(path))


@given(st.data())
def test_a_model_of_sentencepiece_is_built_only_of_the_bytes_of_the_run(
    tmp_path: Path, data: Any
) -> None:
    """The library's release 0.2.1 may end the process on others: none may reach it."""
    path, expected = tmp_path / "source.vocab", vocabulary.digest(subwords())
    path.write_bytes(data.draw(json_file(tree("sentencepiece"))))
    built: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            vocabulary,
            "SentencePieceVocabulary",
            lambda proto: built.append(proto) or subwords(),
        )
        said = refusal(lambda: vocabulary.load(path, expected))
    if said is None:
        assert base64.b64encode(built[0]).decode() == tree("sentencepiece")["model"]
        use(vocabulary.load(path, expected))
    else:
        assert not built
        assert said.startswith(str(path))
