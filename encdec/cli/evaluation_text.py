"""The options that name the test set: sources and references."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from tyro.conf import arg

from encdec.config import DataConfig
from encdec.types import InputError

if TYPE_CHECKING:
    from encdec.data.sources import Pairs
    from encdec.runs.run import Run


def held_out_name(data: DataConfig) -> str:
    """The name of the pairs that a run is evaluated on: a person's own, or a part held out."""
    return "validation" if data.has_validation_files else "held-out"


class TestSet(NamedTuple):
    """A test set of n sentences.

    Attributes:
      name: the name of the set.
      sources: the n source sentences; None where only references are given.
      references: one list of n references for each reference of a sentence.
    """

    name: str
    sources: list[str] | None
    references: list[list[str]]


@dataclass(frozen=True)
class EvaluationText:
    """Text files, TSV files or a prepared corpus; by default the held-out set of the run."""

    source: Annotated[
        tuple[Path, ...],
        arg(help="Source sentences, in one or more files; by default the run's held-out set."),
    ] = ()
    target: Annotated[
        tuple[Path, ...],
        arg(help="Reference translations, one file for each source file; files are concatenated."),
    ] = ()
    extra_references: Annotated[
        tuple[Path, ...],
        arg(
            help="Further references of the same sentences: each file has one reference per "
            "sentence. Metrics count the best match."
        ),
    ] = ()
    tsv: Annotated[
        tuple[Path, ...],
        arg(
            help="Instead of source and target: files of tab-separated columns, one pair per line."
        ),
    ] = ()
    tsv_columns: Annotated[
        tuple[int, ...] | None,
        arg(
            metavar="INT INT [INT ...]",
            help="Columns of the source, of the target and of any further references, counted "
            "from 1; by default those of the run.",
        ),
    ] = None
    corpus: Annotated[
        str | None,
        arg(help="Instead of files: a corpus, tfds:..., that `encdec prepare` has downloaded."),
    ] = None
    split: Annotated[str | None, arg(help="Split of the corpus; by default test.")] = None
    corpus_folder: Annotated[
        Path | None,
        arg(help="Folder of the corpora; by default that of TensorFlow Datasets."),
    ] = None

    def __post_init__(self) -> None:
        for name, needed in (
            ("tsv_columns", "tsv"),
            ("split", "corpus"),
            ("corpus_folder", "corpus"),
        ):
            if getattr(self, name) is not None and not getattr(self, needed):
                raise InputError(f"{name} is given without {needed}: give both, or leave it out")

    @property
    def is_given(self) -> bool:
        """Whether sentences are named; further references do not count as sentences."""
        return bool(self.source or self.target or self.tsv or self.corpus)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are named."""
        return self.source + self.target + self.tsv + self.extra_references

    @property
    def name(self) -> str:
        """The corpus and its split, or the stems of the source (else reference) files."""
        if self.corpus:
            return f"{self.corpus} {self._split}"
        stems = [Path(p.name.removesuffix(".gz")).stem for p in self.tsv or self.source]
        return "+".join(stems or [p.stem for p in self.target])

    def read(self, data: DataConfig) -> TestSet:
        """Reads the named sentences, blank ones too.

        Args:
          data: the data settings of a run; they say which columns a TSV file has and which language
            of a corpus is the source.

        Raises:
          InputError: files of different kinds are named, one cannot be read, or the numbers of
            lines differ.
        """
        from encdec.data.sources import Pairs, read_all, read_pairs, read_tsv
        from encdec.data.tfds import open_split

        if self.corpus and (self.source or self.target or self.tsv):
            raise InputError("corpus and files are given: give one of the two")
        if self.corpus:
            languages = (data.source_language, data.target_language)
            folder = str(self.corpus_folder) if self.corpus_folder else data.corpus_folder
            split = open_split(self.corpus, self._split, folder, languages, data.reverse)
            return self._with_extra(read_all(split), self.name)
        columns = self._columns(data)
        if self.source or self.target:
            return self._with_extra(read_pairs(self.source, self.target, self.tsv), self.name)
        sources, targets, *more = read_tsv(self.tsv, columns)
        return self._with_extra(Pairs(sources, targets), self.name, more)

    def read_references(self) -> TestSet:
        """Reads the references that --target and --extra-references name, without sources."""
        from encdec.data.sources import Pairs, read_lines

        references = [line for path in self.target for line in read_lines(path)]
        pairs = Pairs([""] * len(references), references)
        return self._with_extra(pairs, self.name)._replace(sources=None)

    def held_out(self, run: "Run") -> TestSet:
        """Returns a run's held-out set, with the named further references."""
        return self._with_extra(run.held_out, held_out_name(run.config.data))

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

    @property
    def _split(self) -> str:
        return self.split or "test"

    def _columns(self, data: DataConfig) -> tuple[int, ...]:
        columns = self.tsv_columns or data.tsv_columns
        if len(columns) < 2 or min(columns) < 1:
            raise InputError(
                f"tsv_columns = {' '.join(map(str, columns))} cannot be used: give the columns of "
                "the source, the target and any further references, counted from 1"
            )
        return tuple(columns)
