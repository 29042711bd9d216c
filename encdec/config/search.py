"""What a user may choose of a search: one dataclass for the command line, Python and the page.

`encdec.search.methods` splits the options for the compiled search.
"""

from dataclasses import dataclass
from typing import Literal

from encdec.config.checks import LARGEST, check_types
from encdec.types import InputError

_SMALLEST = 2.0**-126
"""The smallest float32 with all its digits."""


MOST_TOKENS = 2**30
"""No translation has more; int32 and float32 hold this number."""


@dataclass(frozen=True)
class SearchOptions:
    """How translations are searched for."""

    beam: int = 5
    """Beam width; 1 is greedy search."""
    beam_groups: int = 1
    """Diverse beam search (Vijayakumar 2016): the beam is divided into this many groups, whose
    translations differ from each other."""
    diversity_penalty: float = 0.5
    """With several groups: nats that a token loses for each translation of an earlier group that
    has it at the same place."""
    length_penalty: float = 0.6
    """The power of the length that a hypothesis' log-probability is divided by."""
    length_penalty_kind: Literal["wu", "mean"] = "wu"
    """wu: the length is (5 + tokens) / 6 (Wu 2016); mean: it is the number of tokens, so that 1
    gives the mean log-probability of a token."""
    mbr: int = 0
    """Choose by minimum Bayes risk among this many candidates, draws with `sample` or else the best
    of the beam: the one whose expected chrF against all of them is the highest, which is then its
    score. 0 chooses by the score of the search."""
    stop: Literal["never", "heuristic", "first"] = "never"
    """When the beam of a sentence ends: never before no live hypothesis can beat the worst of as
    many finished ones as the beam is wide; heuristic: when none would beat it if it ended now;
    first: when so many have finished."""
    max_ratio: float = 2.0
    """A translation has at most this many tokens for each source token ..."""
    max_extra: int | None = None
    """... and this many more; the default is what nearly all training pairs need."""
    min_length: int = 0
    """A translation has at least this many tokens, its end token included. With a `max_ratio` of 0
    it may be one more than `max_extra`: then none ends before it has so many."""
    ban: tuple[str, ...] = ()
    """Words or phrases that no translation contains, as words and in whatever tokens. A token that
    would complete one is forbidden even where it would be a part of a longer word."""
    ban_ids: tuple[str, ...] = ()
    """The same for tokens and sequences of tokens given as their ids, such as "17" or "17 4 9"."""
    ban_unknown: bool = False
    """No translation contains the unknown token."""
    ban_special: bool = True
    """No translation contains the padding or the start token."""
    force_first: bool = False
    """Every translation begins with what the vocabulary puts before each target, such as the token
    of a language."""
    force_end: bool = False
    """A translation that reaches its limit has the end token as its last."""
    no_repeat_ngram: int = 0
    """No sequence of this many tokens comes twice in a translation; 0 allows all."""
    repetition_penalty: float = 1.0
    """The log-probability of a token that the translation already has is multiplied by this
    (Keskar 2019): above 1 less repetition; 1 changes nothing."""
    prefix: str = ""
    """Every translation begins with this text; the search then continues freely."""
    sample: bool = False
    """Draw translations at random instead, as many as are asked for (`nbest`), in the order in
    which they are drawn; there is no beam then."""
    seed: int = 0
    """Seed of the draws."""
    temperature: float = 1.0
    """Log-probabilities are divided by this and normalised: above 1 flatter, towards 0 greedy."""
    top_k: int = 0
    """Only the k likeliest tokens of each step can be chosen; 0 allows all."""
    top_p: float = 1.0
    """Only the likeliest tokens of each step whose probabilities add up to p can be chosen."""
    epsilon_cutoff: float = 0.0
    """Only tokens of at least this probability can be chosen (Freitag 2023), and the likeliest."""

    def __post_init__(self) -> None:
        self._check_texts()
        self._check_numbers()
        if self.beam_groups > 1 and (self.sample or self.beam % self.beam_groups):
            given = "sample" if self.sample else f"beam = {self.beam}"
            raise InputError(
                f"beam_groups = {self.beam_groups} cannot be used with {given}: groups are equal "
                "parts of a beam"
            )
        if self.mbr > self.beam and not self.sample:
            raise InputError(
                f"mbr = {self.mbr} cannot be used with beam = {self.beam}: give at most "
                f"{self.beam}, a wider beam, or sample"
            )

    def _check_texts(self) -> None:
        """Checks the types of all fields too."""
        if not isinstance(self.prefix, str):
            raise InputError(
                f"prefix = {self.prefix!r} is not a text: give one for all translations; "
                "`prefixes` of `translate` has one for each"
            )
        check_types(self)
        for ids in self.ban_ids:
            if not ids.split() or not all(map(str.isdecimal, ids.split())):
                raise InputError(
                    f"ban_ids = {ids!r} cannot be used: give ids with spaces between, as in '17 4'"
                )

    def _check_numbers(self) -> None:
        positive, finite = "above 0 and finite in float32", "at least 0 and finite in float32"
        small = "at least 0 and below 2^31"
        checks = {
            "beam": (self.beam >= 1, "at least 1"),
            "beam_groups": (self.beam_groups >= 1, "at least 1"),
            "diversity_penalty": (0 <= self.diversity_penalty <= LARGEST, finite),
            "length_penalty": (0 <= self.length_penalty <= LARGEST, finite),
            "mbr": (0 <= self.mbr < 2**31, small),
            "max_ratio": (0 <= self.max_ratio <= LARGEST, finite),
            "max_extra": (
                self.max_extra is None or 1 <= self.max_extra <= MOST_TOKENS,
                "at least 1 and at most 2^30",
            ),
            "min_length": (0 <= self.min_length < 2**31, small),
            "no_repeat_ngram": (0 <= self.no_repeat_ngram < 2**31, small),
            "repetition_penalty": (_SMALLEST <= self.repetition_penalty <= LARGEST, positive),
            "seed": (0 <= self.seed < 2**64, "at least 0 and below 2^64"),
            "temperature": (_SMALLEST <= self.temperature <= LARGEST, positive),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "epsilon_cutoff": (0 <= self.epsilon_cutoff < 1, "at least 0 and below 1"),
        }
        for name, (ok, accepts) in checks.items():
            if not ok:
                value = getattr(self, name)
                raise InputError(f"{name} = {value!r} cannot be used: it must be {accepts}")


@dataclass(frozen=True)
class EnsembleOptions:
    """How the next-token distributions of several runs become one."""

    ensemble_mean: Literal["probabilities", "log-probabilities"] = "probabilities"
    """With several runs: the mean of their probabilities, or of their log-probabilities, which is
    then normalised."""
    ensemble_weights: tuple[float, ...] = ()
    """With several runs: the weight of each in the mean; they add up to 1, and by default all are
    equal."""

    def __post_init__(self) -> None:
        check_types(self)

    def weights_of(self, members: int) -> tuple[float, ...]:
        """The weight of each of so many members.

        Raises:
          InputError: the weights are another number, negative, or do not add up to 1.
        """
        weights = self.ensemble_weights or (1 / members,) * members
        given = f"ensemble_weights = {' '.join(f'{w:g}' for w in weights)}"
        if len(weights) != members:
            raise InputError(f"{given}: {len(weights)} weights for {members} runs, give {members}")
        if not all(0 <= w <= 1 for w in weights) or abs(sum(weights) - 1) > 1e-3:
            raise InputError(f"{given} cannot be used: each must be at least 0, and their sum 1")
        return weights
