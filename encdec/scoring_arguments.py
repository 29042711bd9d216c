"""What the commands that score are asked for: text to score on, and how to compare it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from tyro.conf import arg

from encdec.config import BleuTokenizer, RunConfig
from encdec.data.sources import Pairs, read_pairs
from encdec.report import metrics
from encdec.report.metrics import ScoreOptions
from encdec.types import InputError

HELD_OUT = "held-out"
"""Name of a run's own set."""


@dataclass(frozen=True)
class TextFiles:
    """Parallel text to score on: two and two files, or TSV files, or nothing."""

    source: Annotated[
        tuple[Path, ...],
        arg(help="Source sentences, in one file or several; left out, a run's own held-out set."),
    ] = ()
    target: Annotated[
        tuple[Path, ...], arg(help="Reference translations, in as many files, each as long.")
    ] = ()
    tsv: Annotated[
        tuple[Path, ...],
        arg(help="Instead: files with tab-separated columns, a pair in each line."),
    ] = ()
    tsv_columns: Annotated[
        tuple[int, int], arg(help="Columns of the source and of the target, counted from 1.")
    ] = (1, 2)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files named."""
        return self.source + self.target + self.tsv

    @property
    def name(self) -> str:
        """Stems of the files that sources (or references alone) come from."""
        stems = [Path(p.name.removesuffix(".gz")).stem for p in self.tsv or self.source]
        return "+".join(stems or [p.stem for p in self.target])

    def read(self) -> Pairs:
        """All pairs, blank ones too. Raises InputError, see `read_pairs`."""
        if min(self.tsv_columns) < 1:
            raise InputError("tsv_columns cannot be used: two columns, counted from 1")
        return read_pairs(self.source, self.target, self.tsv, self.tsv_columns)


@dataclass(frozen=True)
class ScoringChoices:
    """How text is compared; what is left out comes from a run's settings."""

    bleu_tokenizer: Annotated[
        BleuTokenizer | None,
        arg(
            metavar="{" + ",".join(get_args(BleuTokenizer)) + "}",
            help="How BLEU splits text; none where it is tokenised; left out, as the run says.",
        ),
    ] = None
    lowercase: Annotated[
        bool | None,
        arg(metavar="{True,False}", help="Lower-case both sides; left out, as the run says."),
    ] = None
    detokenize: Annotated[
        str | None,
        arg(help="Both sides are Moses-tokenised text of this language, such as en: join it."),
    ] = None

    def options(self, config: RunConfig | None) -> ScoreOptions:
        """The choices, for translations of a run with these settings or of no run."""
        usual = metrics.score_options(config) if config else ScoreOptions()
        return ScoreOptions(
            usual.bleu_tokenizer if self.bleu_tokenizer is None else self.bleu_tokenizer,
            usual.lowercase if self.lowercase is None else self.lowercase,
            self.detokenize,
        )
