"""What the commands that score are asked for: text to score on, and how to compare it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

from tyro.conf import arg

from encdec.config import BleuTokenizer, DataConfig, RunConfig
from encdec.data.sources import Pairs, read_all, read_pairs
from encdec.data.tfds import open_split
from encdec.evaluation import metrics
from encdec.evaluation.metrics import MetricOptions
from encdec.types import InputError

HELD_OUT = "held-out"
"""Name of a run's own set."""


@dataclass(frozen=True)
class ScoredText:
    """Parallel text to score on: two and two files, TSV files, a prepared corpus, or nothing."""

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
        tuple[int, int] | None,
        arg(
            metavar="INT INT",
            help="Columns of the source and of the target, counted from 1; left out, as the run "
            "says.",
        ),
    ] = None
    corpus: Annotated[
        str | None,
        arg(help="Instead: a corpus of TensorFlow Datasets as `encdec prepare` left it, tfds:..."),
    ] = None
    split: Annotated[str, arg(help="Split of the corpus.")] = "test"
    corpus_folder: Annotated[
        Path | None, arg(help="Where corpora lie; left out, the default of TensorFlow Datasets.")
    ] = None

    @property
    def given(self) -> bool:
        """Whether any text is named."""
        return bool(self.paths or self.corpus)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files named."""
        return self.source + self.target + self.tsv

    @property
    def name(self) -> str:
        """The corpus and split, or stems of the files that sources (or references) come from."""
        if self.corpus:
            return f"{self.corpus} {self.split}"
        stems = [Path(p.name.removesuffix(".gz")).stem for p in self.tsv or self.source]
        return "+".join(stems or [p.stem for p in self.target])

    def read(self, data: DataConfig) -> Pairs:
        """All pairs, blank ones too; of a corpus in the direction that a run's settings say.

        Raises:
          InputError: see `read_pairs` and `encdec.data.tfds.open_split`.
        """
        if self.corpus and self.paths:
            raise InputError("corpus and files given: give one of the two")
        if self.corpus:
            languages = (data.source_language, data.target_language)
            folder = str(self.corpus_folder) if self.corpus_folder else data.corpus_folder
            return read_all(open_split(self.corpus, self.split, folder, languages, data.reverse))
        columns = self.tsv_columns or data.tsv_columns
        if min(columns) < 1:
            raise InputError("tsv_columns cannot be used: two columns, counted from 1")
        return read_pairs(self.source, self.target, self.tsv, columns)


@dataclass(frozen=True)
class MetricChoices:
    """How text is compared; what is left out comes from a run's settings."""

    bleu_tokenizer: Annotated[
        BleuTokenizer | None,
        arg(
            aliases=("--tokenize",),
            metavar="{" + ",".join(get_args(BleuTokenizer)) + "}",
            help="How BLEU splits text; none where it is tokenised; left out, as the run says, or "
            "13a for text that is detokenised.",
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

    def options(self, config: RunConfig | None) -> MetricOptions:
        """The choices, for translations of a run with these settings or of no run."""
        usual = metrics.metric_options(config) if config else MetricOptions()
        if self.detokenize is not None:
            usual = replace(usual, bleu_tokenizer=MetricOptions.bleu_tokenizer)
        return replace(
            usual,
            bleu_tokenizer=self.bleu_tokenizer or usual.bleu_tokenizer,
            lowercase=usual.lowercase if self.lowercase is None else self.lowercase,
            detokenize=self.detokenize,
        )

    def common_options(self, configs: Sequence[RunConfig]) -> MetricOptions:
        """The choices for translations of several runs, which must agree on what is left out.

        Raises:
          InputError: they do not.
        """
        found = [self.options(config) for config in configs] or [self.options(None)]
        for name in ("bleu_tokenizer", "lowercase"):
            values = [getattr(options, name) for options in found]
            if len(set(values)) > 1:
                raise InputError(
                    f"the runs' scores have different {name} ({' and '.join(map(str, values))}): "
                    f"say which by --{name.replace('_', '-')}"
                )
        return found[0]
