"""Settings of corpus, vocabulary and batches."""

from dataclasses import dataclass
from typing import Literal

from encdec.config.checks import check_ranges, check_types, require
from encdec.types import InputError

VocabularyKind = Literal["chars", "words", "bytes", "sentencepiece", "pretrained"]

_MOST_DATES = 10_000_000
"""More than there are days and ways to write them."""
_MOST_BUCKETS = 100
"""The step is compiled for each, and their search takes the square of their number."""

CORPUS_SETTINGS = (
    *("corpus", "corpus_folder", "train_split", "valid_split", "reverse"),
    *("source", "target", "tsv", "tsv_columns"),
    *("valid_source", "valid_target", "valid_tsv", "holdout", "date_sentences"),
)
"""The fields of `DataConfig` that say which pairs are trained and validated on."""
CORPUS_FILES = ("source", "target", "tsv", "valid_source", "valid_target", "valid_tsv")
"""The settings that name files of text. A run may be resumed with the same text elsewhere."""


@dataclass(frozen=True)
class DataConfig:
    """The corpus, the vocabulary and the batches of a run."""

    corpus: str | None = None
    """A translation corpus of TensorFlow Datasets, `tfds:NAME/CONFIG`, that `encdec prepare` has
    downloaded. Without this and without files: the dates corpus."""
    corpus_folder: str | None = None
    """Folder of the corpora; by default that of TensorFlow Datasets."""
    train_split: str = "train"
    """Split of the corpus to train on; `train[:10%]` is the first tenth of it."""
    valid_split: str = "validation"
    """Split of the corpus to validate on. If the corpus has no `validation`, pairs of the training
    split are held out instead."""
    reverse: bool = False
    """Translate from the second language of the corpus to the first."""
    source: tuple[str, ...] = ()
    """One or more files of source sentences, one in each line (.gz too)."""
    target: tuple[str, ...] = ()
    """As many files of target sentences; line i translates line i of the source file."""
    tsv: tuple[str, ...] = ()
    """Instead of both: files with tab-separated columns, a pair in each line (.gz too)."""
    tsv_columns: tuple[int, int] = (1, 2)
    """Columns of source and target, counted from 1."""
    valid_source: tuple[str, ...] = ()
    """Files of source sentences to validate on."""
    valid_target: tuple[str, ...] = ()
    """Files of target sentences to validate on."""
    valid_tsv: tuple[str, ...] = ()
    """Instead of both: tab-separated files to validate on."""
    holdout: int | float = 1000
    """Number of pairs, or fraction of all pairs if below 1, to hold out for validation if no
    validation files are given; at most a tenth of all."""
    date_sentences: int = 50_000
    """Training pairs of the dates corpus."""
    lowercase: bool = False
    """Lower-case the text before it is encoded."""
    normalization: Literal["none", "nfkc", "nfd"] = "none"
    """Unicode normalization of the text before it is encoded: nfkc gives characters that look alike
    one form; nfd takes accents from their letters, and Hangul syllables apart into letters, which
    are joined again in translations."""
    tokenizer: Literal["none", "moses"] = "none"
    """moses: tokenize the text as the Moses scripts do, and detokenize translations. Text that is
    tokenized already needs none."""
    source_language: str = "en"
    """Language whose rules lower-casing and the Moses tokenizer follow on the source side. In a
    corpus of more than two languages, the one to translate from."""
    target_language: str = "en"
    """The same for the target side, and the language to translate to."""
    vocabulary: VocabularyKind = "sentencepiece"
    """Kind of the tokens; words are separated by white space; pretrained is the tokenizer of an
    imported model."""
    target_vocabulary: VocabularyKind | None = None
    """Kind of the target tokens; by default as on the source side."""
    sentencepiece_model: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece model: unigram language model (Kudo 2018) or byte-pair encoding (Sennrich
    2016)."""
    subword_regularization: float = 0.0
    """For unigram: in training, a sentence is split at random into one of its 64 likeliest
    segmentations, with their probabilities raised to this power, such as 0.2 (Kudo 2018). 0 always
    takes the likeliest."""
    bpe_dropout: float = 0.0
    """For bpe: in training, each merge is dropped with this probability, such as 0.1 (Provilkov
    2020)."""
    vocabulary_size: int | None = None
    """Tokens in each vocabulary. By default all characters or words of the training text, or 8,000
    SentencePiece subwords (fewer if the text has not as many)."""
    vocabulary_sentences: int = 1_000_000
    """Most training sentences that a vocabulary is built from, chosen at random."""
    joint_vocabulary: bool = False
    """Use one vocabulary for both sides."""
    max_source_length: int = 256
    """Most source tokens; longer pairs are left out of training, and counted."""
    max_target_length: int = 256
    """Most target tokens; longer pairs are left out of training, and counted."""
    batch_tokens: int = 4096
    """Most tokens, padding included, of the longer side of a training batch."""
    num_buckets: int = 12
    """Most buckets of sentences by length; each has one batch shape, which is compiled once."""

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(
            self,
            positive="date_sentences max_source_length max_target_length batch_tokens num_buckets "
            "vocabulary_sentences",
            fractions="bpe_dropout",
        )
        for name, most in (("date_sentences", _MOST_DATES), ("num_buckets", _MOST_BUCKETS)):
            require(getattr(self, name) <= most, self, name, f"at least 1 and at most {most}")
        require(self.subword_regularization >= 0, self, "subword_regularization", "at least 0")
        is_count = isinstance(self.holdout, int) and self.holdout >= 1
        accepts = "a number of pairs from 1, or a fraction below 1"
        require(is_count or 0 < self.holdout < 1, self, "holdout", accepts)
        require(min(self.tsv_columns) >= 1, self, "tsv_columns", "two columns, counted from 1")
        if self.corpus is not None and not self.corpus.startswith("tfds:"):
            raise InputError(f"corpus = {self.corpus!r} cannot be used: say tfds:NAME/CONFIG")
        self._check_vocabulary()
        self._check_pair("source", "target", "tsv")
        self._check_pair("valid_source", "valid_target", "valid_tsv")
        for name, default in (("train_split", "train"), ("valid_split", "validation")):
            if self.corpus is None and getattr(self, name) != default:
                raise InputError(
                    f"{name} = {getattr(self, name)!r} needs a corpus with splits: give corpus, or "
                    f"leave {name} out"
                )
        if self.tsv_columns != (1, 2) and not (self.tsv or self.valid_tsv):
            columns = " ".join(map(str, self.tsv_columns))
            raise InputError(
                f"tsv_columns = {columns} needs a file of columns: give tsv, or leave tsv_columns "
                "out"
            )
        if self.corpus is not None and self.has_files:
            raise InputError("corpus and files given: give one of the two")
        if self.has_validation_files and not self.has_corpus:
            raise InputError("validation files need training files: give source and target too")

    def _check_vocabulary(self) -> None:
        kinds = {self.vocabulary, self.target_vocabulary or self.vocabulary}
        if self.vocabulary_size is not None:
            require(self.vocabulary_size > 4, self, "vocabulary_size", "at least 5")
            if kinds == {"bytes"}:
                raise InputError("vocabulary = 'bytes' has one size: leave vocabulary_size out")
        if self.joint_vocabulary and len(kinds) > 1:
            raise InputError(
                f"a joint vocabulary cannot be {self.vocabulary} on one side and "
                f"{self.target_vocabulary} on the other: leave target_vocabulary out"
            )
        for name, model, other in (
            ("subword_regularization", "unigram", "bpe_dropout"),
            ("bpe_dropout", "bpe", "subword_regularization"),
        ):
            if not getattr(self, name):
                continue
            if "sentencepiece" not in kinds:
                raise InputError(f"{name} needs vocabulary = 'sentencepiece'")
            if self.sentencepiece_model != model:
                raise InputError(
                    f"{name} needs sentencepiece_model = {model!r}: with "
                    f"{self.sentencepiece_model!r} use {other}"
                )

    def _check_pair(self, source: str, target: str, tsv: str) -> None:
        given = [name for name in (source, target, tsv) if getattr(self, name)]
        if given not in ([], [source, target], [tsv]):
            raise InputError(
                f"{' and '.join(given)} given: give {source} and {target}, or only {tsv}"
            )
        sources, targets = getattr(self, source), getattr(self, target)
        if len(sources) != len(targets):
            raise InputError(
                f"{source} names {len(sources)} files but {target} {len(targets)}: file i of one "
                "must translate file i of the other"
            )

    @property
    def has_corpus(self) -> bool:
        """Whether the settings name a corpus; if not, it is the dates corpus."""
        return self.corpus is not None or self.has_files

    @property
    def has_files(self) -> bool:
        """Whether files of training text are named."""
        return bool(self.source or self.tsv)

    @property
    def has_validation_files(self) -> bool:
        """Whether files of validation text are named."""
        return bool(self.valid_source or self.valid_tsv)
