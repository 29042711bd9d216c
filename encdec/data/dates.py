"""The built-in corpus: dates as people write them (Babel, CLDR) to ISO `YYYY-MM-DD`.

Sixteen locales, six scripts, full to short formats: «Donnerstag, 3. Mai 1979» -> `1979-05-03`.
Nothing is read or downloaded. The texts are CLDR's, so a new Babel may write some differently.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from babel import Locale
from babel.dates import DateTimePattern, get_date_format

from encdec.data.sources import Pairs

LOCALES = (
    *("en_US", "en_GB", "de", "fr", "es", "it", "nl", "sv", "pl", "tr"),  # Latin
    *("ru", "el", "ar", "hi", "ja", "zh"),  # Cyrillic, Greek, Arabic, Devanagari, Japanese, Chinese
)
STYLES: tuple[Literal["full", "long", "medium", "short"], ...] = (
    "full",
    "long",
    "medium",
    "short",
)

LEFT_OUT = {
    ("en_US", "short"): "month/day/year: 5/3/79 is 3 May here and 5 March in es, el and hi",
}
"""Formats whose text can be another day in a format that is kept, each with the reason."""

FIRST_DAY = date(1970, 1, 1)
LAST_DAY = date(2069, 12, 31)
"""A hundred years, so that two digits of a year say which it is."""

TEST_SENTENCES = 2000
VALID_SENTENCES = 1000

_SPLIT_SEED = 1979

# A keyboard types neither narrow no-break spaces nor direction marks.
_TYPED = str.maketrans({"\u202f": " ", "\u00a0": " ", "\u200e": "", "\u200f": ""})


class Dates(NamedTuple):
    """Three sets of pairs; no day of `train` stands in `valid` or `test`."""

    train: Pairs
    valid: Pairs
    test: Pairs


class Format(NamedTuple):
    """One way to write a date."""

    locale: Locale
    pattern: DateTimePattern


def dates(sentences: int, seed: int) -> Dates:
    """The corpus: a random day in a random format for each sentence.

    `valid` (1,000) and `test` (2,000) are always the same, one sentence a day, so that scores of
    different runs compare.

    Args:
      sentences: size of `train`; days and formats are drawn with replacement.
      seed: what `train` is drawn from.
    """
    days = np.random.default_rng(_SPLIT_SEED).permutation((LAST_DAY - FIRST_DAY).days + 1)
    test, valid, train = np.split(days, [TEST_SENTENCES, TEST_SENTENCES + VALID_SENTENCES])
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(_SPLIT_SEED)
    return Dates(
        train=_write_all(rng.choice(train, sentences), rng),
        valid=_write_all(valid, fixed),
        test=_write_all(test, fixed),
    )


@cache
def formats() -> tuple[Format, ...]:
    """Every format that the corpus uses."""
    return tuple(
        Format(Locale.parse(locale), get_date_format(style, locale))
        for locale in LOCALES
        for style in STYLES
        if (locale, style) not in LEFT_OUT
    )


def write(day: date, how: Format) -> str:
    """A date as a person would type it."""
    return how.pattern.apply(day, how.locale).translate(_TYPED)


def _write_all(days: Iterable[int], rng: np.random.Generator) -> Pairs:
    written = [FIRST_DAY + timedelta(int(day)) for day in days]
    drawn = rng.integers(len(formats()), size=len(written))
    texts = [write(day, formats()[f]) for day, f in zip(written, drawn, strict=True)]
    return Pairs(texts, [day.isoformat() for day in written])
