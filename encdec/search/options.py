"""What a person may choose of a search."""

from dataclasses import dataclass

from encdec.types import InputError


@dataclass(frozen=True)
class SearchOptions:
    """How translations are looked for."""

    beam: int = 5
    """Beam width; 1 is greedy search."""
    length_penalty: float = 0.6
    """Exponent of ((5 + length) / 6) that log-probabilities are divided by (Wu 2016)."""
    max_ratio: float = 2.0
    """Longest translation: this many tokens for each source token ..."""
    max_extra: int | None = None
    """... and this many more; left out, what the training data needs."""
    sample: bool = False
    """Draw at random instead of searching; the beam width is then the number of draws."""
    temperature: float = 1.0
    """Sampling: above 1 flatter, towards 0 greedy."""
    top_k: int = 0
    """Sampling: only the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Sampling: only the fewest tokens whose probabilities reach p."""
    seed: int = 0
    """Sampling: the seed."""

    def __post_init__(self) -> None:
        checks = {
            "beam": (self.beam >= 1, "at least 1"),
            "length_penalty": (self.length_penalty >= 0, "at least 0"),
            "max_ratio": (self.max_ratio >= 0, "at least 0"),
            "max_extra": (self.max_extra is None or self.max_extra >= 1, "at least 1"),
            "temperature": (self.temperature > 0, "above 0"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
        }
        for name, (ok, accepts) in checks.items():
            if not ok:
                value = getattr(self, name)
                raise InputError(f"{name} = {value!r} cannot be used: it must be {accepts}")
