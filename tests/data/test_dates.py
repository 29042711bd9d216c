"""The corpus of dates: no text has two meanings, and no day is both trained and tested on."""

import re
import unicodedata
from datetime import date, timedelta
from itertools import pairwise

import pytest
from babel import Locale
from babel.dates import format_date, get_date_format

from encdec.data import dates as corpus
from encdec.data.dates import (
    EXCLUDED_FORMATS,
    FIRST_DAY,
    LAST_DAY,
    Format,
    dates,
    format_day,
    formats,
)


def some_days() -> list[date]:
    """Every day of twelve years, whose numbers can be confused, then one day in 29."""
    close = [date(2001, 1, 1) + timedelta(i) for i in range(12 * 365)]
    return close + [FIRST_DAY + timedelta(i) for i in range(0, 36525, 29)]


def ambiguous(kept: tuple[Format, ...]) -> set[str]:
    """Texts that mean two days, found by writing every day in every format."""
    day_of: dict[str, date] = {}
    texts = ((format_day(day, how), day) for how in kept for day in some_days())
    return {text for text, day in texts if day_of.setdefault(text, day) != day}


def test_no_text_has_two_readings() -> None:
    assert ambiguous(formats()) == set()


@pytest.mark.parametrize(("locale", "style"), EXCLUDED_FORMATS)
def test_an_excluded_format_would_have_two_readings(locale: str, style: str) -> None:
    excluded = Format(Locale.parse(locale), get_date_format(style, locale))
    spanish = tuple(how for how in formats() if how.locale.language == "es")
    assert "5/3/79" not in ambiguous(spanish)
    assert len(ambiguous((*spanish, excluded))) > 100


def test_two_digits_say_the_year() -> None:
    years = range(FIRST_DAY.year, LAST_DAY.year + 1)
    assert len({year % 100 for year in years}) == len(years) == 100


def test_the_text_is_babels_without_invisible_characters() -> None:
    day = date(1979, 5, 3)
    for how in formats():
        babels = {format_date(day, style, how.locale) for style in corpus.STYLES}
        plain = {re.sub("[\u200e\u200f]", "", re.sub("[\u00a0\u202f]", " ", t)) for t in babels}
        assert format_day(day, how) in plain


def test_each_sentence_holds_the_numbers_of_its_day() -> None:
    train = dates(700, seed=3).train
    for text, iso in zip(*train, strict=True):
        day = date.fromisoformat(iso)
        numbers = [int(n) for n in re.findall(r"[0-9]+", text)]
        assert day.day in numbers
        assert day.year in numbers or day.year % 100 in numbers
        if re.match("[A-Z][a-z]+day", text):
            assert text.startswith(day.strftime("%A"))


def test_six_scripts_and_every_format_occur() -> None:
    train = dates(4000, seed=1).train
    names = {unicodedata.name(c).split()[0] for c in "".join(train.src) if c.isalpha()}
    assert names == {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "DEVANAGARI", "CJK"}
    assert len(formats()) == len(corpus.LOCALES) * len(corpus.STYLES) - len(EXCLUDED_FORMATS)


def test_training_shares_no_day_with_the_rest_whatever_its_size_and_seed() -> None:
    small, large = dates(30, seed=0), dates(6000, seed=8)
    assert (small.valid, small.test) == (large.valid, large.test)
    assert [len(part.src) for part in large] == [6000, 1000, 2000]
    train, valid, test = (set(part.tgt) for part in large)
    assert (len(valid), len(test)) == (1000, 2000)
    for one, other in pairwise([train | set(small.train.tgt), valid, test, train]):
        assert not one & other
    assert min(train) >= FIRST_DAY.isoformat()
    assert max(train) <= LAST_DAY.isoformat()


def test_the_seed_determines_the_sentences() -> None:
    assert dates(40, seed=2) == dates(40, seed=2)
    assert dates(40, seed=2).train != dates(40, seed=3).train
