"""How `encdec translate` writes translations: as lines of text or of JSON."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from encdec.files import finite, json_text, one_line
from encdec.types import InputError

if TYPE_CHECKING:
    import numpy as np

    from encdec.inference.translation import Translation
    from encdec.runs.run import Run


@dataclass(frozen=True)
class OutputOptions:
    """What is written for each line."""

    nbest: Annotated[
        int,
        arg(
            help="Number of translations to write for each line, one per line: best first, or "
            "with --sample in the order in which they are drawn."
        ),
    ] = 1
    scores: Annotated[
        bool, arg(help="Write the score (nats) and a tab before each translation.")
    ] = False
    json: Annotated[
        bool,
        arg(
            help="Write a JSON object for each line: its number, its source tokens, and for each "
            "translation text, score, log_prob, tokens, token_log_probs (nats) and is_cut: whether "
            "it reached the limit of its length without an end token."
        ),
    ] = False
    alignment: Annotated[
        bool,
        arg(
            help="Write ' ||| ' after each translation and then its word alignment, such as "
            "'0-0 2-1': source word 2 is translated by target word 1; words are what white space "
            "separates. With --json a list of such pairs."
        ),
    ] = False
    attention: Annotated[
        bool,
        arg(
            help="With --json: the attention of each target token (rows) to each source token, "
            "the mean of the same maps as for --alignment."
        ),
    ] = False
    layer: Annotated[
        int | None,
        arg(help="Layer whose attention is taken, counted from 1; by default the last two."),
    ] = None
    head: Annotated[
        int | None, arg(help="Head of this layer, counted from 1; by default the mean of all.")
    ] = None

    @property
    def needs_attention(self) -> bool:
        """Whether the translations must have their attention."""
        return self.alignment or self.attention

    def check(self) -> None:
        """Raises InputError if two options contradict each other."""
        if self.json and self.scores:
            raise InputError("--scores and --json are given: --json writes the scores too")
        if self.attention and not self.json:
            raise InputError("--attention needs --json")
        if not self.needs_attention and (self.layer, self.head) != (None, None):
            raise InputError("--layer and --head need --alignment, or --json --attention")


class TranslationLines:
    """Makes the lines of each translated line, and counts translations that were cut.

    Args:
      run: the run that translates; of an ensemble the first.
      options: what is written.

    Raises:
      InputError: the model has no attention, or none of this layer and head, and some is needed.
    """

    def __init__(self, run: "Run", options: OutputOptions) -> None:
        from encdec.inference.alignment import chosen_maps

        self._run, self._options = run, options
        self._maps: list[int] = []
        if options.needs_attention:
            self._maps = chosen_maps(run.config.model, options.layer, options.head)
        self._written = self._cut = 0

    def lines(
        self, number: int, source: str, translations: "Sequence[Translation]"
    ) -> Iterator[str]:
        """Yields what is written for one line of the input.

        As text these are `nbest` lines, empty ones where there are fewer translations; as JSON it
        is one.

        Args:
          number: of the line, from 1.
          source: the line.
          translations: at most `nbest`.
        """
        self._written += len(translations)
        self._cut += sum(one.is_cut for one in translations)
        if self._options.json:
            tokens = translations[0].src_tokens if translations else []
            values = [self._values(one, source) for one in translations]
            tree = {"line": number, "source": tokens, "translations": values}
            yield json_text(tree) + "\n"
            return
        for one in translations:
            yield self._text(one, source)
        for _ in range(self._options.nbest - len(translations)):
            yield self._text(None, source)

    def report(self) -> None:
        """Says on stderr how many translations were cut, if any."""
        if self._cut:
            print(
                f"encdec: {self._cut} of {self._written} translations were cut at the limit of "
                "their length: --max-ratio and --max-extra allow more",
                file=sys.stderr,
            )

    def _text(self, one: "Translation | None", source: str) -> str:
        """The line of a translation; None for one that there is not."""
        text = one_line(one.text) if one else ""
        if self._options.scores:
            text = f"{one.score if one else -math.inf:.4f}\t{text}"
        if self._options.alignment:
            from encdec.inference.alignment import pharaoh

            text += f" ||| {pharaoh(self._links(one, source)) if one else ''}"
        return f"{text}\n"

    def _values(self, one: "Translation", source: str) -> dict[str, Any]:
        """A translation as JSON values."""
        values: dict[str, Any] = {
            "text": one.text,
            "score": _number(one.score),
            "log_prob": _number(one.log_prob),
            "tokens": one.tgt_tokens,
            "token_log_probs": [*map(_number, one.token_log_probs)],
            "is_cut": one.is_cut,
        }
        if self._options.alignment:
            values["alignment"] = self._links(one, source)
        if self._options.attention:
            attention = self._attention(one)
            values["attention"] = [] if attention is None else attention.round(5).tolist()
        return values

    def _links(self, one: "Translation", source: str) -> list[tuple[int, int]]:
        from encdec.inference.alignment import align_translation

        return align_translation(self._run, one, source, self._options.layer, self._options.head)

    def _attention(self, one: "Translation") -> "np.ndarray | None":
        """The mean of the chosen maps, float64 [T, S]; None for a blank text."""
        if one.attention is None:
            return None
        return one.attention[self._maps].mean(0, dtype=float)


def _number(x: float) -> float | None:
    """A JSON number; None for what is not finite."""
    number = finite(x)
    return None if number is None else round(number, 6)
