"""What a request to the page may ask for."""

from dataclasses import dataclass

from encdec.config.checks import check_ranges


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many requests may wait."""

    most_characters: int = 2000
    """The most characters in the text of a request."""
    most_lines: int = 50
    """The most lines in the text of a request; each line is a sentence."""
    most_beam: int = 10
    """The widest beam of a request."""
    most_top_k: int = 100
    """The largest top_k of a request; each value compiles a search of its own."""
    most_waiting: int = 8
    """The most requests that are served or wait at once; further ones are asked to try again."""

    def __post_init__(self) -> None:
        check_ranges(self, positive="most_characters most_lines most_beam most_top_k most_waiting")
