"""Limits on the requests to the page."""

from dataclasses import dataclass

from encdec.config.checks import check_ranges


@dataclass(frozen=True)
class Limits:
    """The largest request, and how many requests may wait."""

    most_characters: int = 2000
    """The most characters in the text of a request."""
    most_lines: int = 50
    """The most lines in the text of a request; one sentence per line."""
    most_beam: int = 10
    """The widest beam of a request."""
    most_top_k: int = 100
    """The largest top_k of a request; the search is compiled again for each value."""
    most_waiting: int = 512
    """The most requests that are served or wait at a time; further ones are refused."""

    def __post_init__(self) -> None:
        check_ranges(self, positive="most_characters most_lines most_beam most_top_k most_waiting")
