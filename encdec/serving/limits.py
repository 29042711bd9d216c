"""What those who use the page may ask for."""

from dataclasses import dataclass

from encdec.config.checks import check_ranges


@dataclass(frozen=True)
class Limits:
    """What one request, and all that wait, may ask for."""

    most_characters: int = 2000
    """Characters of a request's text."""
    most_lines: int = 50
    """Lines of it: each is a sentence."""
    most_beam: int = 10
    """Widest beam."""
    most_waiting: int = 8
    """Requests that wait or are served at once; one more is asked to come again."""

    def __post_init__(self) -> None:
        check_ranges(self, positive="most_characters most_lines most_beam most_waiting")
