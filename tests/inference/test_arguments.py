"""Arguments of a wrong kind: an InputError that names them, before anything is computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encdec
from encdec.config import Seq2SeqConfig
from encdec.inference.markup import translate_markup
from encdec.inference.paragraphs import translate_paragraphs
from encdec.inference.translator import Translator
from tests.small_run import small_run

TEXT = "3. Mai 1979"
PAIR = (TEXT, "1979-05-03")
GREEDY = encdec.SearchOptions(beam=1, max_ratio=0.0, max_extra=3)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    path = tmp_path_factory.mktemp("runs") / "run"
    small_run(path, Seq2SeqConfig(cell="simple", embed=6, hidden=8))
    return encdec.load(path)


def refused(call: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(encdec.InputError) as error:
        call()
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("texts", [5, None, [b"3. Mai"], [None], [TEXT, 5], [[TEXT]]])
def test_texts_are_str(texts: Any, translator: Translator) -> None:
    for translate in (
        lambda: translator.translate(texts, GREEDY),
        lambda: translator.nbest(texts, 1, GREEDY),
        lambda: translate_paragraphs(translator, texts, GREEDY),
        lambda: translate_markup(translator, texts, 1, GREEDY),
    ):
        refused(translate, "texts", "give", "str")


def test_one_text_is_not_several_characters(translator: Translator) -> None:
    for translate in (translate_paragraphs, translate_markup):
        with pytest.raises(TypeError, match="texts must be several"):
            translate(translator, TEXT)
    refused(lambda: translate_markup(translator, [TEXT], keep="%s"), "keep = '%s'")
    refused(lambda: translate_markup(translator, [TEXT], keep=[5]), "keep has 5")  # type: ignore[list-item]
    refused(lambda: encdec.load_ensemble(str(translator.run.path)), "give a list of run folders")


def test_any_iterable_of_texts_will_do(translator: Translator) -> None:
    expected = [one.text for one in translator.translate([TEXT, "1999"], GREEDY)]
    for texts in ((TEXT, "1999"), (text for text in (TEXT, "1999")), np.array([TEXT, "1999"])):
        assert [one.text for one in translator.translate(texts, GREEDY)] == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_batch_tokens", value) for value in (0, -1, 2.5, "3", None, True)),
        *(("max_source_length", value) for value in (-1, 0, 2.5, "3", True)),
        *(("example_ids", value) for value in (5, ["a"], [1.5], [None], np.array([1.5]))),
        *(("processors", value) for value in (5, None, [5])),
        *(("prefixes", value) for value in (5, [5], [None], {0: "1"}, (x for x in "1"))),
        *(("bans", value) for value in (5, [5], [None], [[5]], [[["a"]]], ["a"])),
        *(("phrases", value) for value in (5, [5], [[5]], [[[5]]], ["a"])),
        ("options", {"beam": 3}),
        ("options", 3),
    ],
)
def test_an_argument_of_another_kind_is_named(
    name: str, value: Any, translator: Translator
) -> None:
    part = {"prefixes": "prefix", "bans": "ban", "options": "SearchOptions"}.get(name, name)
    given = {"options": encdec.SearchOptions(beam=2)} | {name: value}
    refused(lambda: translator.translate([TEXT], **given), part)


@pytest.mark.parametrize("count", [0, -1, 2.0, "2", None, True])
def test_a_count_is_an_integer(count: Any, translator: Translator) -> None:
    refused(lambda: translator.nbest([TEXT], count), "nbest")


@pytest.mark.parametrize("best", [0, "9", 1.5, None, True])
def test_the_width_of_a_shortlist_is_an_integer(best: Any, translator: Translator) -> None:
    refused(lambda: translator.with_shortlist("table", best), "best")


def test_maps_are_those_of_a_translation(translator: Translator) -> None:
    refused(lambda: translator.attention(TEXT), "the translation is a str")  # type: ignore[arg-type]


def test_numpy_numbers_are_integers(translator: Translator) -> None:
    given: Any = {"max_batch_tokens": np.int64(99), "example_ids": np.array([-1])}
    (found,) = translator.nbest([TEXT], np.int32(1), GREEDY, **given)
    assert found[0].text == translator.translate([TEXT], GREEDY)[0].text


@pytest.mark.parametrize("pairs", [5, None, encdec.Corpus([PAIR]), [5], [(TEXT, None)], [(5, "x")]])
def test_pairs_are_pairs(pairs: Any, translator: Translator) -> None:
    refused(lambda: encdec.score(translator, pairs), "pair")
    refused(lambda: encdec.evaluate(translator, pairs, GREEDY), "pair")


def test_references_have_an_order(translator: Translator) -> None:
    refused(lambda: encdec.evaluate(translator, [(TEXT, {"a", "b"})], GREEDY), "pair 1")  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("search", 5, "search = 5"),
        ("options", 5, "options is a int"),
        ("options", {}, "options is a dict"),
        ("metrics", 5, "metrics is a int"),
        ("metrics", [5], "metrics has 5"),
        ("max_batch_tokens", 0, "max_batch_tokens = 0"),
    ],
)
def test_options_of_an_evaluation(name: str, value: Any, part: str, translator: Translator) -> None:
    refused(lambda: encdec.evaluate(translator, [PAIR], **{name: value}), part)


@pytest.mark.parametrize("path", [None, 5, b"run", ["run"]])
def test_a_folder_is_a_path(path: Any, translator: Translator, tmp_path: Path) -> None:
    run = translator.run.path
    for call in (
        lambda: encdec.load(path),
        lambda: encdec.load_ensemble([path]),
        lambda: encdec.export_run(path, tmp_path / "out", "safetensors"),
        lambda: encdec.export_run(run, path, "safetensors"),
        lambda: encdec.import_model(path, tmp_path / "out"),
        lambda: encdec.import_model(run, path),
    ):
        refused(call, "give a str or a Path")
    refused(lambda: translator.with_shortlist(path), "give a str or a Path")
    refused(lambda: encdec.score(str(run), [PAIR]), "encdec.load")  # type: ignore[arg-type]
    refused(lambda: encdec.evaluate(str(run), [PAIR]), "encdec.load")  # type: ignore[arg-type]


def test_an_unknown_format_is_not_another_one(translator: Translator, tmp_path: Path) -> None:
    run = translator.run.path
    refused(lambda: encdec.export_run(run, tmp_path / "out", "onnx"), "onnx", "safetensors")
    assert not (tmp_path / "out").exists()


def test_devices_are_named(translator: Translator) -> None:
    run: Any = translator.run.path
    refused(lambda: encdec.load(run, "1x1"), "layout = '1x1'", "Layout.parse")  # type: ignore[arg-type]
    refused(lambda: encdec.load(run, precision="float16"), "float16", "tf32")  # type: ignore[arg-type]
    for names in ((5, "transformer"), ("tiny", None)):
        refused(lambda names=names: encdec.preset(*names), "unknown")


@pytest.mark.parametrize("texts", [[], [""], ["", " "]])
@pytest.mark.parametrize("ratio", [0.0, 2.0])
def test_no_text_needs_no_length(texts: list[str], ratio: float, translator: Translator) -> None:
    options = encdec.SearchOptions(max_ratio=ratio, max_extra=3, min_length=2)
    found = translator.translate(texts, options)
    assert [one.text for one in found] == [""] * len(texts)
