"""Terminology: which terms a text contains, against regular expressions; bad files are named."""

import re
from pathlib import Path

import pytest

from encdec.data.terms import Term, Terminology, read_terms
from encdec.types import InputError


def terms(*pairs: tuple[str, str], banned: bool = False) -> list[Term]:
    return [Term(s, tuple(t.split("|")), banned, f"f, line {n}") for n, (s, t) in enumerate(pairs)]


def found(text: str, *pairs: tuple[str, str]) -> list[str]:
    return [term.source for term in Terminology(terms(*pairs)).find(text)]


def test_terms_are_found_as_words() -> None:
    sources = ["dog", "big dog", "Dog", "US", "us", "C++", "3", "o'clock", "don't", "Ärger"]
    for text in (
        "The big dog and the Dog see us in the US.",
        "hotdog dogs dog-house (dog) DOG big  dog",
        "C++ is 3 o'clock, don't, 13 3rd ärger Ärger",
        "",
    ):
        for source in sources:
            flags = re.IGNORECASE if source == source.lower() else 0
            pattern = r"(?<!\w)" + re.escape(source).replace(r"\ ", r"\s+") + r"(?!\w)"
            expected = [source] if re.search(pattern, text, flags) else []
            assert found(text, (source, "x")) == expected, (source, text)


def test_the_longest_of_overlapping_terms_counts() -> None:
    pairs = [("bank", "Bank"), ("river bank", "Ufer"), ("bank holiday", "Feiertag"), ("river", "F")]
    assert found("the river bank", *pairs) == ["river bank"]
    assert found("river bank holiday", *pairs) == ["river bank"]
    assert found("a bank holiday, a bank and a bank", *pairs) == ["bank holiday", "bank"]
    assert found("River. Bank", *pairs) == ["river", "bank"]
    assert found("us in the US", ("us", "uns"), ("US", "USA")) == ["us", "US"]
    several = [("a b", "X"), ("b c d", "Y"), ("a", "Z"), ("d e", "V")]
    assert found("a b c d e", *several) == ["a", "b c d"]
    assert found("a b c d", *several[:2]) == ["b c d"]
    assert found("a b c", *several[:2]) == ["a b"]


def test_scripts_without_spaces() -> None:
    assert found("黒い猫が寝る", ("猫", "cat"), ("黒い猫", "black cat"), ("犬", "dog")) == [
        "黒い猫"
    ]
    assert found("고양이가 잔다", ("고양이", "cat")) == ["고양이"]


def test_both_kinds_belong_to_one_terminology() -> None:
    both = Terminology(
        [*terms(("dog", "Hund")), *terms(("dog", "Köter"), ("hot dog", "Hund"), banned=True)]
    )
    assert [term.targets for term in both.find("a dog")] == [("Hund",), ("Köter",)]
    assert [term.targets for term in both.find("a hot dog")] == [("Hund",)]
    cases = Terminology([*terms(("Java", "Java")), *terms(("java", "Kaffee"), banned=True)])
    assert [term.targets for term in cases.find("Java")] == [("Java",), ("Kaffee",)]
    assert [term.targets for term in cases.find("java")] == [("Kaffee",)]
    cases = Terminology([*terms(("Java", "Java")), *terms(("java", "Java"), banned=True)])
    assert [term.banned for term in cases.find("Java")] == [False]
    with pytest.raises(InputError, match="f, line 0 demands what f, line 0 forbids"):
        Terminology([*terms(("dog", "Hund")), *terms(("dog", "Hund"), banned=True)])
    with pytest.raises(InputError, match="f, line 0 and f, line 1 have the same source term 'dog'"):
        Terminology(terms(("dog", "Hund"), ("dog", "Rüde")))


def test_files_are_read_and_bad_lines_named(tmp_path: Path) -> None:
    path = tmp_path / "terms.tsv"
    path.write_text("dog\tHund\n\n big dog \t großer Hund | Rüde\n")
    assert read_terms(path) == [
        Term("dog", ("Hund",), False, f"{path}, line 1"),
        Term("big dog", ("großer Hund", "Rüde"), False, f"{path}, line 3"),
    ]
    for line, says in (
        ("dog Hund", "line 2 has 1 column between tabs"),
        ("dog\tHund\tx", "line 2 has 3 columns between tabs"),
        ("dog\t", "line 2 has an empty target term"),
        ("\tHund", "line 2 has an empty source term"),
        ("dog\tHund|", "line 2 has an empty target term"),
    ):
        path.write_text(f"cat\tKatze\n{line}\n")
        with pytest.raises(InputError, match=says):
            read_terms(path)
