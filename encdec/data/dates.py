"""The built-in corpus: dates as people write them, to ISO dates `YYYY-MM-DD`.

The formats are those of CLDR (by Babel), from full to short, of sixteen locales in six scripts:
«Donnerstag, 3. Mai 1979» -> `1979-05-03`. The corpus is computed; nothing is read or downloaded.
Another version of CLDR may write some dates differently.
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

EXCLUDED_FORMATS = {
    ("en_US", "short"): "5/3/79 is 3 May there, but 5 March in es, el and hi",
}
"""Formats whose text means another day in one of the other formats, each with the reason."""

FIRST_DAY = date(1970, 1, 1)
LAST_DAY = date(2069, 12, 31)
"""A hundred years, in which the last two digits of a year are unique."""

TEST_SENTENCES = 2000
VALID_SENTENCES = 1000

_SPLIT_SEED = 1979

_TO_TYPED = str.maketrans({"\u202f": " ", "\u00a0": " ", "\u200e": "", "\u200f": ""})
"""Replaces what no keyboard types: no-break spaces by spaces, direction marks by nothing."""


class Dates(NamedTuple):
    """Three sets of pairs; no day is in two of them."""

    train: Pairs
    valid: Pairs
    test: Pairs


class Format(NamedTuple):
    """A way to write a date: the pattern of a locale."""

    locale: Locale
    pattern: DateTimePattern


def dates(sentences: int, seed: int) -> Dates:
    """Computes the corpus: each sentence is a random day in a random format.

    `valid` (1,000 sentences) and `test` (2,000) have one sentence for each of their days and do not
    depend on the arguments, so that scores of different runs can be compared.

    Args:
      sentences: size of `train`, whose days and formats are sampled with replacement.
      seed: of `train`.
    """
    days = np.random.default_rng(_SPLIT_SEED).permutation((LAST_DAY - FIRST_DAY).days + 1)
    test, valid, train = np.split(days, [TEST_SENTENCES, TEST_SENTENCES + VALID_SENTENCES])
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(_SPLIT_SEED)
    return Dates(
        train=_random_formats(rng.choice(train, sentences), rng),
        valid=_random_formats(valid, fixed),
        test=_random_formats(test, fixed),
    )


@cache
def formats() -> tuple[Format, ...]:
    """All formats that the corpus uses."""
    return tuple(
        Format(Locale.parse(locale), get_date_format(style, locale))
        for locale in LOCALES
        for style in STYLES
        if (locale, style) not in EXCLUDED_FORMATS
    )


def format_day(day: date, format: Format) -> str:
    """Writes a date as a person would type it."""
    return format.pattern.apply(day, format.locale).translate(_TO_TYPED)


def _random_formats(days: Iterable[int], rng: np.random.Generator) -> Pairs:
    """Pairs of days, given by their distance from `FIRST_DAY`, each in a random format."""
    dated = [FIRST_DAY + timedelta(int(day)) for day in days]
    indices = rng.integers(len(formats()), size=len(dated))
    texts = [format_day(day, formats()[i]) for day, i in zip(dated, indices, strict=True)]
    return Pairs(texts, [day.isoformat() for day in dated])
