"""The options that name the text to evaluate on: sources and references."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from tyro.conf import arg

from encdec.config import DataConfig
from encdec.types import InputError

if TYPE_CHECKING:
    from encdec.data.sources import Pairs

HELD_OUT = "held-out"
"""Name of a run's own held-out set."""


class TestSet(NamedTuple):
    """n sentences to evaluate on.

    Attributes:
      name: of the set.
      sources: the n source sentences; None where only references are given.
      references: lists of n references.
    """

    name: str
    sources: list[str] | None
    references: list[list[str]]


@dataclass(frozen=True)
class EvaluationText:
    """Text files, TSV files, or a prepared corpus; if nothing is named, a run's held-out set."""

    source: Annotated[
        tuple[Path, ...],
        arg(help="Source sentences, in one or more files; left out, a run's own held-out set."),
    ] = ()
    target: Annotated[
        tuple[Path, ...],
        arg(help="Reference translations, in as many files; the files of a side are concatenated."),
    ] = ()
    extra_references: Annotated[
        tuple[Path, ...],
        arg(
            help="Further references of the same sentences: each file has one more reference for "
            "every sentence. Metrics count the best match."
        ),
    ] = ()
    tsv: Annotated[
        tuple[Path, ...],
        arg(help="Instead of source and target: files of tab-separated columns, a pair a line."),
    ] = ()
    tsv_columns: Annotated[
        tuple[int, ...] | None,
        arg(
            metavar="INT INT [INT ...]",
            help="Columns of the source, of the target and of any further references, counted "
            "from 1; left out, the run's.",
        ),
    ] = None
    corpus: Annotated[
        str | None,
        arg(help="Instead: a TensorFlow Datasets corpus that `encdec prepare` fetched, tfds:..."),
    ] = None
    split: Annotated[str, arg(help="Split of the corpus.")] = "test"
    corpus_folder: Annotated[
        Path | None,
        arg(help="Folder of the corpora; left out, the default of TensorFlow Datasets."),
    ] = None

    @property
    def is_given(self) -> bool:
        """Whether sentences are named; further references alone are none."""
        return bool(self.source or self.target or self.tsv or self.corpus)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are named."""
        return self.source + self.target + self.tsv + self.extra_references

    @property
    def name(self) -> str:
        """The corpus and its split, or the stems of the source (else reference) files."""
        if self.corpus:
            return f"{self.corpus} {self.split}"
        stems = [Path(p.name.removesuffix(".gz")).stem for p in self.tsv or self.source]
        return "+".join(stems or [p.stem for p in self.target])

    def read(self, data: DataConfig) -> TestSet:
        """All sentences that are named, blank ones too.

        Args:
          data: settings of a run, for the columns of TSV files and the direction of a corpus.

        Raises:
          InputError: files of different kinds are named, one cannot be read, or the numbers of
            lines differ.
        """
        from encdec.data.sources import read_all, read_pairs
        from encdec.data.tfds import open_split

        if self.corpus and (self.source or self.target or self.tsv):
            raise InputError("corpus and files are given: give one of the two")
        if self.corpus:
            languages = (data.source_language, data.target_language)
            folder = str(self.corpus_folder) if self.corpus_folder else data.corpus_folder
            split = open_split(self.corpus, self.split, folder, languages, data.reverse)
            return self._with_extra(read_all(split), self.name)
        source, target, *others = self._columns(data)
        pairs = read_pairs(self.source, self.target, self.tsv, (source, target))
        more = [read_pairs(tsv=self.tsv, columns=(source, other)).tgt for other in others]
        return self._with_extra(pairs, self.name, more)

    def read_references(self) -> TestSet:
        """The references that --target and --extra-references name, without sources."""
        from encdec.data.sources import Pairs, read_lines

        references = [line for path in self.target for line in read_lines(path)]
        pairs = Pairs([""] * len(references), references)
        return self._with_extra(pairs, self.name)._replace(sources=None)

    def held_out(self, pairs: "Pairs") -> TestSet:
        """A run's held-out set, with the further references that are named."""
        return self._with_extra(pairs, HELD_OUT)

    def _with_extra(
        self, pairs: "Pairs", name: str, more: list[list[str]] | None = None
    ) -> TestSet:
        from encdec.data.sources import read_lines

        references = [pairs.tgt, *(more or [])]
        for path in self.extra_references:
            lines = read_lines(path)
            if len(lines) != len(pairs.tgt):
                raise InputError(
                    f"{path} has {len(lines)} lines but there are {len(pairs.tgt)} sentences "
                    f"({name}): a file of further references has a line for every sentence"
                )
            references.append(lines)
        return TestSet(name, pairs.src, references)

    def _columns(self, data: DataConfig) -> tuple[int, ...]:
        columns = self.tsv_columns or data.tsv_columns
        if len(columns) < 2 or min(columns) < 1:
            raise InputError(
                f"tsv_columns = {' '.join(map(str, columns))} cannot be used: give the columns of "
                "the source, the target and any further references, counted from 1"
            )
        return tuple(columns)
