"""Markup that is taken out of a text and put into another: exact examples, and random texts."""

import random
import re

import pytest

from encdec.data.markup import keep_patterns, remove_markup
from encdec.data.markup_placement import restore_markup
from encdec.data.word_spans import word_spans
from encdec.types import InputError


def words(text: str) -> list[str]:
    return [text[a:b] for a, b in word_spans(text)]


def links_by_table(source: str, translation: str, table: dict[str, str]) -> list[tuple[int, int]]:
    """Links each word to the first one in the source that the table translates as it."""
    ours = words(source)
    return [
        (i, j)
        for j, word in enumerate(words(translation))
        for i, other in enumerate(ours)
        if table.get(other, other) == word
    ]


TABLE = {
    **{"A": "Ein", "black": "schwarzer", "dog": "Hund", "runs": "läuft", "today": "heute"},
    **{"Hello": "Hallo", "how": "wie", "are": "geht", "you": "es", "I": "Ich", "have": "habe"},
    **{"seen": "gesehen", "the": "den", "film": "Film", "km": "km", "in": "in", "costs": "kostet"},
}


@pytest.mark.parametrize(
    ("source", "plain", "translation", "expected"),
    [
        (
            "A <b>black</b> dog runs.",
            "A black dog runs.",
            "Ein schwarzer Hund läuft.",
            "Ein <b>schwarzer</b> Hund läuft.",
        ),
        (
            "A black <b>dog</b>.",
            "A black dog.",
            "Ein schwarzer Hund.",
            "Ein schwarzer <b>Hund</b>.",
        ),
        ("<p>A dog runs.</p>", "A dog runs.", "Ein Hund läuft.", "<p>Ein Hund läuft.</p>"),
        (
            "Hello {name}, how are you?",
            "Hello, how are you?",
            "Hallo, wie geht es?",
            "Hallo {name}, wie geht es?",
        ),
        ("{name} runs today.", "runs today.", "läuft heute.", "{name} läuft heute."),
        ("today {name} runs", "today runs", "läuft heute", "{name} läuft heute"),
        (
            "I have <i>seen</i> the <b>film</b>.",
            "I have seen the film.",
            "Ich habe den Film gesehen.",
            "Ich habe den <b>Film</b> <i>gesehen</i>.",
        ),
        (
            "A <b>black <i>dog</i></b> runs",
            "A black dog runs",
            "Ein schwarzer Hund läuft",
            "Ein <b>schwarzer <i>Hund</i></b> läuft",
        ),
        ("A dog<br/> runs", "A dog runs", "Ein Hund läuft", "Ein Hund<br/> läuft"),
        ("A {n}km", "A km", "Ein km", "Ein {n}km"),
        ("A <b>{x}</b> dog", "A dog", "Ein Hund", "Ein <b>{x}</b> Hund"),
        ("A </b> dog <i>runs", "A dog runs", "Ein Hund läuft", "Ein </b> Hund <i>läuft"),
        ("{a, plural, one {b}}", "", "", "{a, plural, one {b}}"),
        ("A } { dog {x} runs", "A } { dog runs", "Ein } { Hund läuft", "Ein } { Hund {x} läuft"),
        (
            """A <a title='x > y' href = "z>">dog</a> runs""",
            "A dog runs",
            "Ein Hund läuft",
            """Ein <a title='x > y' href = "z>">Hund</a> läuft""",
        ),
        ('A <b x=">dog</b> runs', "A dog runs", "Ein Hund läuft", 'Ein <b x=">Hund</b> läuft'),
        ("2 < 3 and 4 > 3", "2 < 3 and 4 > 3", "2 < 3 und 4 > 3", "2 < 3 und 4 > 3"),
    ],
)
def test_examples(source: str, plain: str, translation: str, expected: str) -> None:
    removed = remove_markup(source)
    assert removed.text == plain
    links = links_by_table(plain, translation, TABLE)
    assert restore_markup(removed, translation, links) == expected


def test_a_pattern_of_the_user_is_kept() -> None:
    removed = remove_markup("A %s runs %d km", keep_patterns([r"%[sd]"]))
    assert removed.text == "A runs km"
    assert [piece.text for piece in removed.pieces] == ["%s", "%d"]
    links = links_by_table(removed.text, "Ein läuft km", TABLE)
    assert restore_markup(removed, "Ein läuft km", links) == "Ein %s läuft %d km"
    for bad, says in (("[", "not a regular expression"), ("x*", "fits the empty text")):
        with pytest.raises(InputError, match=says):
            keep_patterns([bad])


def test_words() -> None:
    text = "Herr O'Neill's Hund-Foto, 3,5 हिन्दी 日本x!"
    assert words(text) == [
        *("Herr", "O'Neill's", "Hund-Foto", ",", "3", ",", "5", "हिन्दी"),
        *("日", "本", "x", "!"),
    ]


SPACES = ("", " ", " ", "  ")


def random_markup(rng: random.Random, depth: int = 0) -> list[str]:
    """Words, placeholders and nested pairs, with spaces between words."""
    parts: list[str] = []
    for _ in range(rng.randrange(1, 6)):
        kind = rng.random()
        if kind < 0.6:
            parts += [f"w{rng.randrange(99)}", rng.choice(["", "", ","]), rng.choice([" ", "  "])]
        elif kind < 0.8 or depth > 2:
            parts += [f"{{p{rng.randrange(9999)}}}", rng.choice(SPACES)]
        else:
            name = f"t{rng.randrange(9999)}"
            parts += [f"<{name}>", rng.choice(SPACES), *random_markup(rng, depth + 1)]
            parts += [f"</{name}>", rng.choice(SPACES)]
    return parts


MARKUP = re.compile(r"<[^<>]+>|\{[^{}]*\}")


def assert_nested(text: str) -> None:
    opened: list[str] = []
    for name in re.findall(r"<(/?t\d+)>", text):
        if name[0] == "/":
            assert opened.pop() == name[1:], text
        else:
            opened.append(name)
    assert not opened


def texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(random_markup(rng)) for _ in range(count)]


@pytest.mark.parametrize("source", texts(1, 300))
def test_the_same_text_with_the_same_words_gets_its_markup_back(source: str) -> None:
    removed = remove_markup(source)
    links = [(i, i) for i in range(len(words(removed.text)))]
    restored = restore_markup(removed, removed.text, links)
    # Where a tag is within a word or between a word and its mark, it goes around the word.
    assert "".join(restored.split()) == "".join(source.split())
    assert restored.strip() == source.strip()


def test_any_links_give_each_piece_once_and_pairs_nested() -> None:
    rng = random.Random(2)
    for source in texts(3, 600):
        removed = remove_markup(source)
        count = len(words(removed.text))
        translation = "".join(
            f"v{k}" + rng.choice([" ", ". ", "  "]) for k in range(rng.randrange(12))
        )
        length = len(words(translation))
        links = [
            (rng.randrange(count), rng.randrange(length))
            for _ in range(rng.randrange(9))
            if count and length
        ]
        restored = restore_markup(removed, translation, links)
        assert sorted(MARKUP.findall(restored)) == sorted(MARKUP.findall(source)), (
            source,
            restored,
        )
        assert_nested(restored)
        assert words(MARKUP.sub(" ", restored)) == words(translation)


def test_links_in_order_keep_the_order_of_markup() -> None:
    rng = random.Random(4)
    for source in texts(5, 600):
        removed = remove_markup(source)
        count = len(words(removed.text))
        length = rng.randrange(1, 15)
        if not count:
            continue
        ordered = sorted(rng.randrange(count) for _ in range(length))
        links = [(i, j) for j, i in enumerate(ordered) if rng.random() < 0.8]
        translation = " ".join(f"v{k}" for k in range(length))
        restored = restore_markup(removed, translation, links)
        assert MARKUP.findall(restored) == MARKUP.findall(source), (source, links, restored)
